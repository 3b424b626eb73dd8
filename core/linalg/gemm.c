/* Matrix products: one call of a BLAS while they are small, the built-in product's blocks
 * shared by the threads when they are large, and wherever no BLAS takes the strides. All
 * is decided by size: results do not depend on the number of threads. gemm_ways.c asks
 * for these ways by name where measuring has found that another than the rule's is
 * faster. Read next: gemm_shared.c, gemm_ways.c, blas.c, kernels/cpu/gemm_type.h. */
#include <limits.h>
#include <nyx/parallel.h>

#include "../base/cpu.h"
#include "blas.h"
#include "gemm_run.h"
#include "panels.h"

/* Multiplications, m * n * k, that are worth waking a thread for: 12 microseconds of one
 * AVX-512 core. Ranges of a batch and parts of a product have about as many. */
#define RANGE ((int64_t)1 << 20)
/* The same of a vector times a matrix, which is bound by memory; rows of which dot
 * products are taken in a slab, columns of rows that are summed: the longer the pieces of
 * rows, the better they are foreseen. */
#define VECTOR_RANGE ((int64_t)1 << 17)
#define VECTOR_ROWS 32
#define VECTOR_COLS 2048
#define TINY_RANGE ((int64_t)1 << 15) /* the same of a batch of tiny ones */
#define SUM_COLS 512                  /* of partial sums that are added up at a time */
#define VECTOR_UNITS 32               /* slabs of such columns, times parts of the rows */
#define FEW_COLS 1024                 /* the same for few rows at a time */
#define PACKED 8192 /* elements to pack that are worth waking a thread for */
/* Products of four ranges or more are divided between threads. */
#define ENOUGH 16 /* products of a batch that need not be divided */
/* Slabs of a product, each a call of a BLAS: thinner ones lose speed to packing the short
 * side again. Longer short sides are shared. */
#define SLAB 128
#define UNPACKED 1000000 /* multiplications of a slab that a BLAS need not pack */
/* Partial sums along k, when C is too small to be divided: at most so many, at least so
 * deep. */
#define DEPTH_PARTS 16
#define PART_DEPTH 256
#define VECTOR_DEPTH 128 /* of a vector */
/* Products that the threads share: from how many multiplications and what side on; with
 * so few rows B is not packed. */
#define SHARED (2 * RANGE)
#define SHARED_LEAST 48
#define SHARED_LEAST_ROWS 8
#define IN_PLACE_ROWS 160
/* With so few rows a thread packs the columns of B that it is about to multiply, some
 * tiles at a time, so that they come from the second cache; rows of B so far apart that
 * they throw each other out of it are copied in the same way. */
#define PACKING_ROWS 256
#define CONFLICTING_BYTES 16384
/* Parts of the columns that few rows are multiplied with, or the opposite; terms of a dot
 * product for each of more than eight rows, as lanes are added up at its end; columns of
 * sums, of which two threads have a piece each. */
#define FEW_PARTS 32
#define FEW_TERMS 8
#define FEW_SUMS 256
/* Rows, columns and terms of products whose A is read where it lies. */
#define PLACE_ROWS 64
#define PLACE_LEAST 16
#define PLACE_COLS 256
#define PLACE_TERMS 128
/* A result that is so small, of so many terms, is divided along them. */
#define DEEP_SIDE 256
#define DEEP_TERMS 4096

static bool fits_int(int64_t x) {
  return x >= 0 && x <= INT_MAX;
}

/* How a BLAS would see a rows x cols matrix with these strides; false: it cannot. */
static bool layout(int64_t rows, int64_t cols, int64_t rs, int64_t cs, int *trans,
                   int *ld) {
  if (rows == 1) rs = cols; /* the stride of one row is never used */
  if (cols == 1) cs = rs == 1 ? rows : 1;
  if (cs == 1 && rs >= cols && fits_int(rs)) {
    *trans = NYX_BLAS_PLAIN;
    *ld = (int)rs;
    return true;
  }
  if (rs == 1 && cs >= rows && fits_int(cs)) {
    *trans = NYX_BLAS_TRANSPOSED;
    *ld = (int)cs;
    return true;
  }
  return false;
}

static void clear(nyx_dtype dtype, const nyx_product *p) {
  size_t item = nyx_dtype_size(dtype);
  for (int64_t i = 0; i < p->m; i++) {
    memset((char *)p->c + (size_t)(i * p->ldc) * item, 0, (size_t)p->n * item);
  }
}

/* A vector whose elements lie together: x, or a copy. */
static const void *side_by_side(const void *x, int64_t n, int64_t step, size_t item,
                                void **copy) {
  *copy = NULL;
  if (step == 1 || n == 1) return x;
  if (!(*copy = nyx_memory_alloc((size_t)n * item))) return NULL;
  for (int64_t i = 0; i < n; i++)
    memcpy((char *)*copy + (size_t)i * item, (const char *)x + (size_t)(i * step) * item,
           item);
  return *copy;
}

/* Matrix times vector: one column of C, or one row, with everything transposed. false:
 * neither the rows nor the columns of the matrix lie together. */
static bool by_vector(nyx_dtype dtype, const nyx_product *p) {
  const nyx_gemm_kernel *kernel = kernel_of(dtype);
  bool column = p->n == 1;
  int64_t rows = column ? p->m : p->n, rs = column ? p->a_rs : p->b_cs;
  int64_t cs = column ? p->a_cs : p->b_rs, step = column ? p->b_rs : p->a_cs;
  int64_t c_step = column ? p->ldc : 1;
  const void *matrix = column ? p->a : p->b, *x = column ? p->b : p->a;
  if (cs == 1 || p->k == 1) {
    void *copy;
    x = side_by_side(x, p->k, step, nyx_dtype_size(dtype), &copy);
    if (!x) return false;
    kernel->dots(matrix, rs, rows, p->k, x, p->c, c_step, p->add);
    nyx_memory_free(copy);
    return true;
  }
  if (rs != 1 || (c_step != 1 && rows > 1)) return false;
  kernel->sum_rows(matrix, cs, p->k, rows, x, step, p->c, p->add);
  return true;
}

static bool by_blas(nyx_dtype dtype, const nyx_product *p) {
  const nyx_blas *blas = nyx__blas();
  if (!blas || !fits_int(p->m) || !fits_int(p->n) || !fits_int(p->k)) return false;
  int trans_a, trans_b, lda, ldb;
  if (!layout(p->m, p->k, p->a_rs, p->a_cs, &trans_a, &lda)) return false;
  if (!layout(p->k, p->n, p->b_rs, p->b_cs, &trans_b, &ldb)) return false;
  if (!fits_int(p->ldc)) return false;
  int m = (int)p->m, n = (int)p->n, k = (int)p->k, ldc = (int)p->ldc;
  if (dtype == NYX_FLOAT32) {
    blas->sgemm(NYX_BLAS_ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0f, p->a, lda, p->b, ldb,
                p->add ? 1.0f : 0.0f, p->c, ldc);
  } else {
    blas->dgemm(NYX_BLAS_ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0, p->a, lda, p->b, ldb,
                p->add ? 1.0 : 0.0, p->c, ldc);
  }
  return true;
}

/* Integers: arithmetic modulo 2^bits is exact modulo 2^bits at every step. */
#define INTEGER_PRODUCT(name, T)                                                         \
  static void name(const nyx_product *p) {                                               \
    for (int64_t i = 0; i < p->m; i++) {                                                 \
      T *restrict c = (T *)p->c + i * p->ldc;                                            \
      for (int64_t l = 0; l < p->k; l++) {                                               \
        T left = ((const T *)p->a)[i * p->a_rs + l * p->a_cs];                           \
        const T *restrict row = (const T *)p->b + l * p->b_rs;                           \
        for (int64_t j = 0; j < p->n; j++) c[j] = (T)(c[j] + left * row[j * p->b_cs]);   \
      }                                                                                  \
    }                                                                                    \
  }
INTEGER_PRODUCT(product_u8, uint8_t)
INTEGER_PRODUCT(product_u32, uint32_t)
INTEGER_PRODUCT(product_u64, uint64_t)

static void integer_product(nyx_dtype dtype, const nyx_product *p) {
  if (!p->add) clear(dtype, p);
  switch (nyx_dtype_size(dtype)) {
    case 1: product_u8(p); break;
    case 4: product_u32(p); break;
    default: product_u64(p);
  }
}

/* In the calling thread; `own`: not by a BLAS. */
static void multiply_here(nyx_dtype dtype, const nyx_product *p, bool own) {
  if (p->m < 1 || p->n < 1) return;
  if (p->k < 1) {
    if (!p->add) clear(dtype, p);
    return;
  }
  if (!nyx_dtype_is_float(dtype)) {
    integer_product(dtype, p);
    return;
  }
  if ((p->n == 1 || p->m == 1) && by_vector(dtype, p)) return;
  if (!own && by_blas(dtype, p)) return;
  const nyx_gemm_kernel *kernel = kernel_of(dtype);
  void *work = nyx_memory_alloc(nyx__cpu_kernels()->gemm->work_bytes);
  if (work) {
    kernel->product(p, work);
  } else {
    kernel->direct(p);
  }
  nyx_memory_free(work);
}

void nyx__gemm_here(nyx_dtype dtype, const nyx_product *p) {
  multiply_here(dtype, p, false);
}

/* The product of batch entry `index`. */
static nyx_product entry(const nyx_gemm *g, int64_t index, int64_t item) {
  nyx_product p = g->product;
  int64_t a = 0, b = 0, rest = index;
  for (int d = g->batch_ndim - 1; d >= 0; d--) {
    int64_t at = rest % g->batch_shape[d];
    rest /= g->batch_shape[d];
    a += at * g->a_batch[d];
    b += at * g->b_batch[d];
  }
  p.a = (const char *)p.a + a * item;
  p.b = (const char *)p.b + b * item;
  p.c = (char *)p.c + index * p.m * p.ldc * item;
  return p;
}

/* Columns of a B that NYX__GEMM_PLACE packs, in whole tiles; 0: it lies so that tiles can
 * read it, which begin inside it. */
static int64_t place_cols(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  int64_t tile = kernel_of(g->dtype)->tile_cols;
  return p->b_cs == 1 && p->n >= tile ? 0 : parts_of(p->n, tile) * tile;
}

/* Terms of a block there, and of parts of the terms. */
static int64_t place_depth(const gemm_run *r) {
  return nyx__gemm_block(r->way, kernel_of(r->g->dtype), r->item, false, r->depth);
}

/* Elements of what is packed of one product; 0: nothing. */
static int64_t packed_room(const gemm_run *r) {
  const nyx_product *p = &r->g->product;
  if (r->way == NYX__GEMM_PLACE) return place_cols(r->g) * p->k;
  if (r->way != NYX__GEMM_FEW) return 0;
  return ((r->by_rows ? p->n : p->m) + 3) / 4 * 4 * ((p->k + 15) / 16 * 16);
}

/* Parts of it that are packed alone. */
static int64_t packed_items(const gemm_run *r) {
  if (r->way == NYX__GEMM_FEW) return 1;
  return place_cols(r->g) / kernel_of(r->g->dtype)->tile_cols;
}

static char *packed_at(const gemm_run *r, int64_t index) {
  return r->packed + index * packed_room(r) * r->item;
}

/* The panel of columns from j on, block by block of each part. */
static void pack_place(const gemm_run *r, const nyx_product *p, int64_t j, char *to) {
  const nyx_gemm_kernel *kernel = kernel_of(r->g->dtype);
  int64_t depth = place_depth(r), cols = place_cols(r->g);
  for (int64_t part = 0; part < p->k; part += r->depth) {
    int64_t end = part + r->depth < p->k ? part + r->depth : p->k;
    for (int64_t l = part; l < end; l += depth) {
      nyx_product q = *p;
      narrow(&q, r->item, 0, q.m, j, kernel->tile_cols, l,
             end - l < depth ? end - l : depth);
      kernel->pack_b(q.b, q.b_rs, q.b_cs, q.k, q.n, to + (l * cols + j * q.k) * r->item);
    }
  }
}

/* Items are products, or their panels of columns. */
static void pack(void *arg, int64_t begin, int64_t end) {
  const gemm_run *r = arg;
  const nyx_gemm_kernel *kernel = kernel_of(r->g->dtype);
  const int64_t panels = packed_items(r);
  for (int64_t i = begin; i < end; i++) {
    nyx_product p = entry(r->g, i / panels, r->item);
    char *to = packed_at(r, i / panels);
    if (r->way == NYX__GEMM_FEW)
      kernel->pack_few(&p, r->by_rows, to);
    else
      pack_place(r, &p, i % panels * kernel->tile_cols, to);
  }
}

/* p, which lies in one of all products from column `col` and term `first` on: A is read
 * where it lies, and B or the panels of its product. */
static void multiply_place(const gemm_run *r, const nyx_product *p, int64_t col,
                           int64_t first, const char *panels) {
  const nyx_gemm_kernel *kernel = kernel_of(r->g->dtype);
  int64_t depth = place_depth(r), cols = place_cols(r->g);
  for (int64_t l = 0; l < p->k; l += depth) {
    nyx_product q = *p;
    narrow(&q, r->item, 0, q.m, 0, q.n, l, depth);
    q.add = p->add || l > 0;
    /* From beyond the second cache they come late. */
    if (r->asks) q.next = (const char *)q.a + q.m * q.a_rs * r->item;
    const char *b = NULL;
    if (cols) b = panels + ((first + l) * cols + col * q.k) * r->item;
    kernel->block(&q, q.m, NULL, b);
  }
}

static void run_slabs(void *arg, int64_t begin, int64_t end) {
  gemm_run *r = arg;
  for (int64_t unit = begin; unit < end && going(r); unit++) {
    int64_t slab = unit % r->slabs * r->slab, part = unit / r->slabs % r->parts;
    int64_t index = unit / r->slabs / r->parts;
    nyx_product p = entry(r->g, index, r->item);
    if (r->parts > 1) {
      p.c = r->partial + part * p.m * p.n * r->item;
      p.ldc = p.n;
      p.add = false;
    }
    int64_t row = r->by_rows ? slab : 0, col = r->by_rows ? 0 : slab;
    narrow(&p, r->item, row, r->by_rows ? r->slab : p.m, col, r->by_rows ? p.n : r->slab,
           part * r->depth, r->depth);
    row += index * r->g->product.m;
    const nyx_region region = {p.c, p.ldc, row, p.m, col, p.n};
    const nyx_epilogue *after = r->parts > 1 ? NULL : r->g->after;
    if (nyx__epilogue_begin(after, r->g->dtype, &region)) p.add = true;
    if (r->way == NYX__GEMM_FEW)
      kernel_of(r->g->dtype)->few(&p, r->by_rows, packed_at(r, index));
    else if (r->way == NYX__GEMM_PLACE)
      multiply_place(r, &p, col, part * r->depth, packed_at(r, index));
    else
      multiply_here(r->g->dtype, &p, r->own);
    nyx__epilogue_end(after, r->g->dtype, &region);
  }
}

static bool is_vector(const nyx_product *p) {
  return p->m == 1 || p->n == 1;
}

/* A vector times a matrix whose rows are added up: parts along k read whole rows. */
static bool sums_rows(const nyx_product *p) {
  if (p->m == 1 && p->n > 1) return p->b_cs == 1;
  return p->n == 1 && p->m > 1 && p->a_rs == 1;
}

/* The longer side of slabs for which a BLAS may have kernels that pack nothing, at least
 * 16; OpenBLAS with AVX-512 has them up to a million multiplications. */
static int64_t fine_side(const nyx_product *p) {
  int64_t side = UNPACKED / work_of(p->m < p->n ? p->m : p->n, p->k, 1) / 16 * 16;
  return side < 16 ? 16 : side > SLAB ? SLAB : side;
}

/* Columns of a slab of rows that are summed: a half for a vector, an eighth for few rows,
 * in pieces that are read well. */
static int64_t vector_cols(int64_t n) {
  return n < 2 * 128 ? 128 : n > 2 * VECTOR_COLS ? VECTOR_COLS : n / 2;
}
static int64_t few_cols(int64_t n) {
  return n < 8 * 128 ? 128 : n > 8 * FEW_COLS ? FEW_COLS : n / 8;
}

/* Whether the kernels for few rows can take it: two to NYX_FEW_MOST on one side, and
 * terms or neighbours that lie together on the other. */
static bool few_rows(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  bool turned = p->m >= p->n; /* as slabs are by rows then */
  int64_t few = turned ? p->n : p->m, many = turned ? p->m : p->n;
  if (!nyx_dtype_is_float(g->dtype) || p->k < 1) return false;
  if (few < 2 || few > NYX_FEW_MOST || many < NYX_FEW_LEAST) return false;
  return turned ? p->a_rs == 1 || p->a_cs == 1 : p->b_rs == 1 || p->b_cs == 1;
}

/* Columns of dot products in whole tiles, columns of rows that are summed in pieces that
 * are read well. */
static void divide_few(gemm_run *r, const nyx_product *p, int64_t work) {
  int64_t long_side = r->by_rows ? p->m : p->n;
  bool dots = (r->by_rows ? p->a_cs : p->b_rs) == 1;
  int64_t least = dots ? 48 : few_cols(long_side), whole = dots ? 12 : 32;
  int64_t slabs = long_side / least;
  if (slabs > FEW_PARTS) slabs = FEW_PARTS;
  if (slabs > work / r->range) slabs = work / r->range;
  if (slabs < 2) return;
  r->slab = parts_of(parts_of(long_side, slabs), whole) * whole;
  r->slabs = parts_of(long_side, r->slab);
}

/* Whole tiles: about as many rows as are worth a thread, all of whose columns come before
 * the next rows, or as many columns. */
static void divide_place(gemm_run *r, const nyx_product *p, int64_t work) {
  const nyx_gemm_kernel *kernel = kernel_of(r->g->dtype);
  int64_t long_side = r->by_rows ? p->m : p->n, slabs = work / r->range;
  int64_t tile = r->by_rows ? kernel->tile_rows : kernel->tile_cols;
  int64_t tiles = parts_of(long_side, tile);
  if (slabs < 2) return;
  r->slab = (tiles > slabs ? tiles / slabs : 1) * tile;
  r->slabs = parts_of(long_side, r->slab);
}

/* Divides the longer side of C into slabs of equal size, multiples of 16. */
static void divide_slabs(gemm_run *r, const nyx_product *p) {
  int64_t work = work_of(p->m, p->n, p->k), long_side = r->by_rows ? p->m : p->n;
  if (r->way == NYX__GEMM_FEW) {
    divide_few(r, p, work);
    return;
  }
  if (work / 4 < r->range) return;
  if (r->way == NYX__GEMM_PLACE) {
    divide_place(r, p, work);
    return;
  }
  bool fine = r->way == NYX__GEMM_FINE && !is_vector(p);
  int64_t least = fine ? fine_side(p) : SLAB;
  if (is_vector(p)) least = sums_rows(p) ? vector_cols(long_side) : VECTOR_ROWS;
  int64_t slabs = long_side / least;
  if (slabs > work / r->range) slabs = work / r->range;
  if (slabs < 2) return;
  r->slab = fine ? fine_side(p) : (parts_of(long_side, slabs) + 15) / 16 * 16;
  r->slabs = parts_of(long_side, r->slab);
}

/* A long sum for few results: x^T g over a large batch, a dot product. A vector times
 * rows that are added up is divided both ways, so that many threads have slabs of it. */
static void divide_depth(gemm_run *r, const nyx_product *p) {
  int64_t work = work_of(p->m, p->n, p->k), most = DEPTH_PARTS;
  bool both = sums_rows(p) && r->slabs > 1;
  int64_t deep = both ? VECTOR_DEPTH : PART_DEPTH;
  if (both) most = VECTOR_UNITS / r->slabs;
  int64_t parts = work / r->range / (both ? r->slabs : 1);
  if (both && most > p->k / deep) most = p->k / deep;
  if (parts > most) parts = most;
  if (work / 4 < r->range || parts < 2 || p->k / parts < deep) return;
  if (r->slabs > 2 && !both) return;
  if (!both) {
    r->slabs = 1;
    r->slab = r->by_rows ? p->m : p->n;
  }
  r->depth = (parts_of(p->k, parts) + 31) / 32 * 32;
  r->parts = parts_of(p->k, r->depth);
}

/* A sum of parts: `rows` of so many columns, which lie `apart` in C. */
typedef struct parts_sum {
  const gemm_run *r;
  int64_t rows, cols, apart;
  bool add;
} parts_sum;

/* c = the sum of the parts, in order, or gains it. Items are SUM_COLS columns of a row.
 */
#define SUM_PARTS(name, T)                                                               \
  static void name(void *arg, int64_t begin, int64_t end) {                              \
    const parts_sum *s = arg;                                                            \
    const T *from = (const T *)s->r->partial;                                            \
    const int64_t pieces = parts_of(s->cols, SUM_COLS);                                  \
    for (int64_t item = begin; item < end; item++) {                                     \
      const int64_t i = item / pieces, j = item % pieces * SUM_COLS;                     \
      const int64_t n = s->cols - j < SUM_COLS ? s->cols - j : SUM_COLS;                 \
      T *to = (T *)s->r->g->product.c + i * s->apart + j;                                \
      for (int64_t part = 0; part < s->r->parts; part++) {                               \
        const T *row = from + (part * s->rows + i) * s->cols + j;                        \
        bool add = part > 0 || s->add;                                                   \
        for (int64_t e = 0; e < n; e++) to[e] = add ? to[e] + row[e] : row[e];           \
      }                                                                                  \
    }                                                                                    \
  }
SUM_PARTS(sum_parts_f32, float)
SUM_PARTS(sum_parts_f64, double)

/* A column that lies together is summed as a row. */
static void sum_parts(const gemm_run *r, bool add) {
  const nyx_product *p = &r->g->product;
  bool column = p->n == 1 && p->ldc == 1;
  parts_sum s = {r, column ? 1 : p->m, column ? p->m : p->n, p->ldc, add};
  const int64_t pieces = parts_of(s.cols, SUM_COLS);
  const int64_t work = r->parts * (s.cols < SUM_COLS ? s.cols : SUM_COLS);
  nyx_parallel_for(s.rows * pieces, VECTOR_RANGE / 8 / work + 1,
                   r->g->dtype == NYX_FLOAT32 ? sum_parts_f32 : sum_parts_f64, &s);
}

/* A long sum for few results, which is divided along k. */
static bool deep(const nyx_product *p) {
  int64_t side = p->m > p->n ? p->m : p->n;
  return side <= DEEP_SIDE && p->k >= DEEP_TERMS && p->k / 16 >= side;
}

/* `count` products, divided into slabs or along k where they are large. */
static nyx_status by_slabs(gemm_run *r, int64_t count) {
  const nyx_product *p = &r->g->product;
  r->by_rows = p->m >= p->n;
  r->slab = r->by_rows ? p->m : p->n;
  r->depth = p->k;
  r->slabs = r->parts = 1;
  /* Slabs of few rows would each read all of B again. */
  bool along = r->way == NYX__GEMM_PLACE && deep(p);
  bool whole = r->way == NYX__GEMM_FEW || (r->way == NYX__GEMM_PLACE && !along);
  if (count < ENOUGH && !along) divide_slabs(r, p);
  if (count == 1 && nyx_dtype_is_float(r->g->dtype) && !whole) divide_depth(r, p);
  if (r->parts > 1) {
    size_t bytes = (size_t)(r->parts * p->m * p->n * r->item);
    r->partial = nyx_memory_alloc(bytes);
    if (!r->partial) return nyx__no_memory(r->ctx, bytes);
  }
  int64_t room = packed_room(r);
  int64_t a_bytes = work_of(p->m, p->k, r->item), l2 = nyx__gemm_in_place_bytes();
  r->asks = a_bytes > l2 / 16 && work_of(count, a_bytes, 1) > l2 / 2;
  if (room) {
    size_t bytes = (size_t)(count * room * r->item);
    r->packed = nyx_memory_alloc(bytes);
    if (!r->packed) return nyx__no_memory(r->ctx, bytes);
    nyx_parallel_for(count * packed_items(r), PACKED / (room / packed_items(r)) + 1, pack,
                     r);
  }
  int64_t unit = work_of(p->m, p->n, p->k) / (r->slabs * r->parts) + 1;
  nyx_parallel_for(count * r->slabs * r->parts, unit < r->range ? r->range / unit : 1,
                   run_slabs, r);
  if (r->parts > 1 && going(r)) {
    const nyx_region region = {p->c, p->ldc, 0, p->m, 0, p->n};
    bool add = nyx__epilogue_begin(r->g->after, r->g->dtype, &region) || p->add;
    sum_parts(r, add);
    nyx__epilogue_end(r->g->after, r->g->dtype, &region);
  }
  nyx_memory_free(r->partial);
  nyx_memory_free(r->packed);
  return NYX_OK;
}

/* Whether it is large in both directions, so that the tiles of the built-in product are
 * used well and threads gain from sharing it. Few rows are enough where B stays where it
 * is: 8 to 47 took 0.35 to 0.7 of OpenBLAS's time with AVX-512, 0.5 to 0.9 with AVX2. */
static bool shareable(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  if (!nyx_dtype_is_float(g->dtype) || work_of(p->m, p->n, p->k) < SHARED) return false;
  if (!nyx__cpu_kernels()->gemm->fast && nyx__blas()) return false;
  return p->m >= (p->b_cs == 1 ? SHARED_LEAST_ROWS : SHARED_LEAST) &&
         p->n >= SHARED_LEAST;
}

/* Whether there is a BLAS with kernels that pack nothing. */
static bool blas_in_place(void) {
  return nyx__blas() && strcmp(nyx__cpu_kernels()->width, "avx512") == 0;
}

/* Few rows or columns, for such kernels: two to five times as fast. */
static bool skinny(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  int64_t count = 1, side = p->m < p->n ? p->m : p->n;
  for (int d = 0; d < g->batch_ndim; d++) count *= g->batch_shape[d];
  return nyx_dtype_is_float(g->dtype) && count < ENOUGH && side > 1 &&
         side < SHARED_LEAST && work_of(side, p->k, 16) <= UNPACKED && blas_in_place();
}

/* Four fifths of the second cache: 640 x 640 floats, of 2 MiB, took 2 to 12 % less time
 * unpacked, 768 x 768 as much. */
int64_t nyx__gemm_in_place_bytes(void) {
  int64_t l2 = (int64_t)nyx__cpu_info()->l2;
  return l2 >= 1 << 18 && l2 <= 1 << 24 ? l2 * 4 / 5 : 1 << 20;
}

/* Packing B pays when its panels are read often enough and would not stay in the second
 * cache as they are. */
bool nyx__gemm_in_place(const nyx_product *p, int64_t item) {
  return p->b_cs == 1 && (p->m <= IN_PLACE_ROWS ||
                          work_of(p->n, p->k, item) <= nyx__gemm_in_place_bytes());
}

/* Whether the other factor is read from beyond the second cache. About as many rows as a
 * tile has go as fast by tiles, where rows of B are what lies together: there is nothing
 * to pack, and it is read once. */
static bool few_pays(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  const nyx_gemm_kernel *kernel = kernel_of(g->dtype);
  bool turned = p->m >= p->n, dots = (turned ? p->a_cs : p->b_rs) == 1;
  int64_t few = turned ? p->n : p->m, many = turned ? p->m : p->n;
  int64_t bytes = work_of(many, p->k, (int64_t)nyx_dtype_size(g->dtype));
  if (!few_rows(g) || bytes <= nyx__gemm_in_place_bytes()) return false;
  if (dots) return few <= kernel->few_dots && (few <= 8 || few * FEW_TERMS <= p->k);
  if (many < FEW_SUMS) return false;
  return turned || !shareable(g) || few <= kernel->tile_rows / 2 ||
         few > kernel->tile_rows;
}

/* Whether packing A, or all of B, costs more than tiles lose that read A where it lies:
 * columns that are not many times as many as a tile's, and a B that stays in the second
 * cache, or whose parts do (docs/decisions/017-few-rows.md has what was measured). */
static bool place_pays(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  int64_t item = (int64_t)nyx_dtype_size(g->dtype), work = work_of(p->m, p->n, p->k);
  bool together = p->b_cs == 1 && p->n >= 2 * PLACE_LEAST; /* columns of B */
  if (!nyx_dtype_is_float(g->dtype) || p->k == 0) return false;
  if (p->a_rs != 1 && p->a_cs != 1) return false;
  if (deep(p) && together) return p->m >= SHARED_LEAST_ROWS;
  /* Panels of A that are kept need no packing, and give the same bits. */
  if (g->keep_a && p->b_cs == 1 && shareable(g) && !few_pays(g)) return false;
  if (p->m < PLACE_ROWS || p->n < PLACE_LEAST) return false;
  if (p->n > PLACE_COLS && p->k > PLACE_TERMS) return false;
  if (work_of(p->n, p->k, item) > nyx__gemm_in_place_bytes() / 3 && !deep(p))
    return false;
  if (p->a_cs != 1) { /* few terms, as each is in other lines, and not in the same sets */
    return together && work > UNPACKED && p->k <= PLACE_TERMS / 2 &&
           p->n >= SHARED_LEAST && p->n <= PLACE_COLS &&
           (few_pays(g) || p->a_cs * item % 4096 != 0);
  }
  if (p->b_cs != 1)
    return p->k <= PLACE_TERMS || (work >= SHARED && p->n >= SHARED_LEAST);
  if (!together) return false;
  return !blas_in_place() ||
         (work > UNPACKED && (p->n >= SHARED_LEAST || p->k > PLACE_TERMS / 2));
}

/* A large B, read by few rows. Of 1024 to 4096 columns, whose terms lie together: 30 to
 * 10 % less time with 65 to 192 rows than packing all of it first. */
static bool packing_pays(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  int64_t item = (int64_t)nyx_dtype_size(g->dtype), tile = kernel_of(g->dtype)->tile_rows;
  if (work_of(p->n, p->k, item) <= nyx__gemm_in_place_bytes()) return false;
  if (p->m > PACKING_ROWS || p->n < 2 * p->m) return false;
  return !nyx__gemm_in_place(p, item) ||
         (p->m > tile && p->b_rs * item % CONFLICTING_BYTES == 0);
}

nyx__gemm_way nyx__gemm_rule(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  int64_t item = (int64_t)nyx_dtype_size(g->dtype);
  if (place_pays(g)) return NYX__GEMM_PLACE;
  if (few_pays(g)) return NYX__GEMM_FEW;
  if (!shareable(g)) return skinny(g) ? NYX__GEMM_FINE : NYX__GEMM_SLABS;
  if (deep(p)) return nyx__blas() ? NYX__GEMM_SLABS_OWN : NYX__GEMM_SLABS;
  if (packing_pays(g)) return NYX__GEMM_PACKING;
  if (!nyx__gemm_in_place(p, item)) return NYX__GEMM_PACKED;
  return work_of(p->n, p->k, item) > nyx__gemm_in_place_bytes() ? NYX__GEMM_COLUMNS
                                                                : NYX__GEMM_ROWS;
}

uint32_t nyx__gemm_usable(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  uint32_t ways = 1u << NYX__GEMM_SLABS | 1u << NYX__GEMM_FINE | 1u << NYX__GEMM_ONE;
  if (!nyx_dtype_is_float(g->dtype)) return ways;
  if (few_rows(g)) ways |= 1u << NYX__GEMM_FEW;
  if (p->k > 0 && (p->a_rs == 1 || p->a_cs == 1)) ways |= 1u << NYX__GEMM_PLACE;
  if (nyx__blas()) ways |= 1u << NYX__GEMM_SLABS_OWN | 1u << NYX__GEMM_ONE_OWN;
  if (p->m < 8 || p->n < SHARED_LEAST) return ways;
  ways |= 1u << NYX__GEMM_PACKING | 1u << NYX__GEMM_PACKED |
          1u << NYX__GEMM_PACKED_SHALLOW | 1u << NYX__GEMM_PACKED_DEEP;
  /* A tile of a B in place begins inside it: there are more columns than a tile has. */
  return p->b_cs == 1 ? ways | 1u << NYX__GEMM_ROWS | 1u << NYX__GEMM_COLUMNS : ways;
}

/* What a way means for products that are not shared. */
static void set_ranges(gemm_run *r) {
  bool fine =
      r->way == NYX__GEMM_FINE || r->way == NYX__GEMM_FEW || r->way == NYX__GEMM_PLACE;
  bool one = r->way == NYX__GEMM_ONE || r->way == NYX__GEMM_ONE_OWN;
  r->own = r->way == NYX__GEMM_SLABS_OWN || r->way == NYX__GEMM_ONE_OWN;
  r->range = is_vector(&r->g->product) ? VECTOR_RANGE : fine ? RANGE / 4 : RANGE;
  if (one) r->range = INT64_MAX;
}

/* Whether to multiply by kept panels of B: where packing it takes time, not for one row.
 */
static bool by_kept_panels(const nyx_gemm *g) {
  const nyx_product *p = &g->product;
  if (!g->keep_b || !nyx_dtype_is_float(g->dtype)) return false;
  if (!nyx__cpu_kernels()->gemm->fast && nyx__blas()) return false;
  return p->m > 1 && p->n >= SHARED_LEAST && p->k >= SHARED_LEAST;
}

/* By panels of B that its storage keeps, in the blocks of the way it would go otherwise:
 * the same results. */
static nyx_status multiply_kept(nyx_context *ctx, const nyx_gemm *g, nyx__gemm_way way,
                                bool *done) {
  gemm_run r = {.ctx = ctx, .g = g, .item = (int64_t)nyx_dtype_size(g->dtype)};
  nyx_product p = entry(g, 0, r.item);
  const nyx_gemm_kernel *kernel = kernel_of(g->dtype);
  bool packed = way != NYX__GEMM_PLACE && !nyx__gemm_in_place(&p, r.item);
  int64_t depth = nyx__gemm_block(r.way, kernel, r.item, packed, p.k);
  return nyx__panels_kept(ctx, kernel, g->dtype, &p, depth, g->keep_b, g->after, done);
}

/* A batch of tiny products, which would each take longer to be called than to be made. */

static bool is_tiny(const nyx_gemm *g, int64_t count) {
  const nyx_product *p = &g->product;
  return count > 1 && g->batch_ndim == 1 && nyx_dtype_is_float(g->dtype) && !g->after &&
         !p->add && p->m <= NYX_TINY && p->n <= NYX_TINY && p->k >= 1 && p->k <= NYX_TINY;
}

static void run_tiny(void *arg, int64_t begin, int64_t end) {
  gemm_run *r = arg;
  enum { SOME = 4096 }; /* between two looks whether to stop */
  for (int64_t i = begin; i < end && going(r); i += SOME) {
    const nyx_product p = entry(r->g, i, r->item);
    kernel_of(r->g->dtype)
        ->tiny(&p, end - i < SOME ? end - i : SOME, r->g->a_batch[0], r->g->b_batch[0]);
  }
}

nyx_status nyx__gemm_by(nyx_context *ctx, const nyx_gemm *g, nyx__gemm_way way) {
  int64_t count = 1;
  for (int d = 0; d < g->batch_ndim; d++) count *= g->batch_shape[d];
  if (count < 1 || g->product.m < 1 || g->product.n < 1) return NYX_OK;
  if (count == 1 && by_kept_panels(g)) {
    bool done;
    NYX_TRY(multiply_kept(ctx, g, way, &done));
    if (done) return NYX_OK;
  }
  gemm_run r = {.ctx = ctx, .g = g, .way = way};
  r.item = (int64_t)nyx_dtype_size(g->dtype);
  set_ranges(&r);
  atomic_init(&r.status, NYX_OK);
  if (is_tiny(g, count)) {
    const int64_t work = work_of(g->product.m, g->product.n, g->product.k);
    nyx_parallel_for(count, TINY_RANGE / work, run_tiny, &r);
  } else if (way >= NYX__GEMM_ROWS) {
    for (int64_t i = 0; i < count && going(&r); i++) {
      nyx_product p = entry(g, i, r.item);
      NYX_TRY(nyx__gemm_shared(&r, &p, i * p.m));
    }
  } else {
    NYX_TRY(by_slabs(&r, count));
  }
  switch (atomic_load(&r.status)) {
    case NYX_OK: return NYX_OK;
    case NYX_ERR_INTERRUPTED: return nyx__error(ctx, INTERRUPTED);
    default: return nyx__no_memory(ctx, nyx__cpu_kernels()->gemm->work_bytes);
  }
}
