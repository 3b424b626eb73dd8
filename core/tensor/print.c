/* Tensors as text. The last two dimensions are a block of rows and columns; more
 * dimensions give one block per position, headed by it. One number format serves the
 * whole tensor, chosen from the elements shown; large tensors show their edges, and only
 * those elements are touched. Read next: nyx_tensor_format in nyx/tensor.h. */
#include <math.h>
#include <nyx/grad.h>
#include <stdio.h>
#include <string.h>

#include "../device/device.h"
#include "../transform/lift.h"
#include "tensor.h"

typedef struct cell {
  union {
    double f;  /* float dtypes, the real part */
    int64_t i; /* others */
  };
  double imag;
} cell;

typedef enum style {
  STYLE_BOOL,
  STYLE_INT,
  STYLE_WHOLE, /* floats without fractions: no point */
  STYLE_FIXED,
  STYLE_SCIENTIFIC
} style;

#define CELL_TEXT 64
#define PAIR_TEXT (2 * CELL_TEXT + 2)

typedef struct printer {
  nyx_context *ctx;
  nyx_tensor *t;
  nyx_print_options options;
  int64_t edge[NYX_MAX_DIMS];  /* items at each end, where a dimension is cut */
  int64_t shown[NYX_MAX_DIMS]; /* items shown; less than the size: it is cut */
  cell *cells;                 /* the elements shown, row-major */
  int64_t count;
  style style;
  int width; /* of the longest cell */
  char *text;
  size_t used, size;
  nyx_status status;
} printer;

/* Text that grows. After a failure, which status keeps, nothing more is added. */

static void add(printer *p, const char *text, size_t n) {
  if (p->status != NYX_OK) return;
  if (p->size - p->used <= n) {
    size_t size = p->size * 2 + n + 256;
    char *bigger = nyx_memory_alloc(size);
    if (!bigger) {
      p->status = nyx__no_memory(p->ctx, size);
      return;
    }
    if (p->used) memcpy(bigger, p->text, p->used);
    nyx_memory_free(p->text);
    p->text = bigger;
    p->size = size;
  }
  memcpy(p->text + p->used, text, n);
  p->used += n;
  p->text[p->used] = '\0';
}

static void add_text(printer *p, const char *text) {
  add(p, text, strlen(text));
}

static void add_int(printer *p, int64_t value) {
  char text[24];
  snprintf(text, sizeof text, "%lld", (long long)value);
  add_text(p, text);
}

static void add_blanks(printer *p, int64_t n) {
  for (; n > 0; n--) add(p, " ", 1);
}

/* What is shown */

static bool is_cut(const printer *p, int d) {
  return p->shown[d] < p->t->shape[d];
}

/* The position of the k-th item shown of dimension d. */
static int64_t position(const printer *p, int d, int64_t k) {
  return k < p->edge[d] ? k : k + p->t->shape[d] - p->shown[d];
}

static int64_t count_shown(printer *p) {
  int64_t count = 1;
  for (int d = 0; d < p->t->ndim; d++) {
    int64_t size = p->t->shape[d];
    p->shown[d] = size > 2 * p->edge[d] ? 2 * p->edge[d] : size;
    if (__builtin_mul_overflow(count, p->shown[d], &count)) return INT64_MAX;
  }
  return count;
}

/* Above the threshold every dimension shows its edges; many dimensions show less at each,
 * outer ones first, so that what is shown stays within about a thousand elements. */
static void choose_shown(printer *p) {
  int64_t most = p->options.threshold;
  bool all = p->t->numel <= most;
  for (int d = 0; d < p->t->ndim; d++)
    p->edge[d] = all ? p->t->shape[d] : p->options.edge_items;
  p->count = count_shown(p);
  if (most < 1000) most = 1000;
  for (int d = 0; !all && d < p->t->ndim; d++) {
    while (p->count > most && p->edge[d] > 1) {
      p->edge[d] /= 2;
      p->count = count_shown(p);
    }
  }
}

/* Reading */

static bool holds_floats(const printer *p) {
  return nyx__has_gradient(p->t->dtype);
}

static void load(const printer *p, const char *from, int64_t step, int64_t n, cell *out) {
  nyx_dtype part = nyx_dtype_real(p->t->dtype);
  for (int64_t k = 0; k < n; k++, from += step) {
    out[k].imag = 0;
    if (holds_floats(p)) out[k].f = nyx__load_double(part, from);
    if (part != p->t->dtype)
      out[k].imag = nyx__load_double(part, from + nyx__item(part));
    else if (!holds_floats(p))
      out[k].i = nyx__load_int(p->t->dtype, from);
  }
}

/* All n elements of t, a tensor of another device; converted here, because not every
 * device knows float64. */
static nyx_status read_device(printer *p, nyx_tensor *t, int64_t n, cell *out) {
  size_t item = nyx_dtype_size(t->dtype), bytes = (size_t)n * item;
  char *raw = nyx_memory_alloc(bytes);
  if (!raw) return nyx__no_memory(p->ctx, bytes);
  nyx_status status = nyx_tensor_read(p->ctx, t, t->dtype, raw, bytes);
  if (status == NYX_OK) load(p, raw, (int64_t)item, n, out);
  nyx_memory_free(raw);
  return status;
}

/* n elements of the last dimension from `offset` (in elements of the storage). */
static nyx_status read_run(printer *p, int64_t offset, int64_t n, cell *out) {
  nyx_tensor *t = p->t;
  int64_t stride = t->ndim ? t->stride[t->ndim - 1] : 0;
  if (nyx__on_cpu(t)) {
    int64_t item = (int64_t)nyx_dtype_size(t->dtype);
    load(p, (const char *)t->storage->data + offset * item, stride * item, n, out);
    return NYX_OK;
  }
  nyx_spec spec = {.dtype = t->dtype, .ndim = 1, .offset = offset};
  spec.shape[0] = n;
  spec.stride[0] = stride;
  nyx_tensor *run;
  NYX_TRY(nyx__tensor_view(p->ctx, t->storage, &spec, &run));
  nyx_status status = read_device(p, run, n, out);
  nyx_tensor_release(run);
  return status;
}

/* The elements shown of dimensions d and on, at `offset`, to *out, which moves on. */
static nyx_status gather(printer *p, int d, int64_t offset, cell **out) {
  nyx_tensor *t = p->t;
  int last = t->ndim - 1;
  if (d < last) {
    for (int64_t k = 0; k < p->shown[d]; k++)
      NYX_TRY(gather(p, d + 1, offset + position(p, d, k) * t->stride[d], out));
    return NYX_OK;
  }
  int64_t n = last < 0 ? 1 : p->shown[last];
  int64_t head = last >= 0 && is_cut(p, last) ? p->edge[last] : n;
  NYX_TRY(read_run(p, offset, head, *out));
  if (head < n) {
    int64_t skip = position(p, last, head) * t->stride[last];
    NYX_TRY(read_run(p, offset + skip, n - head, *out + head));
  }
  *out += n;
  return NYX_OK;
}

static nyx_status read_cells(printer *p) {
  size_t bytes = (size_t)p->count * sizeof(cell);
  p->cells = nyx_memory_alloc(bytes);
  if (!p->cells) return nyx__no_memory(p->ctx, bytes);
  if (p->count == p->t->numel && !nyx__on_cpu(p->t))
    return read_device(p, p->t, p->count, p->cells);
  cell *out = p->cells;
  return gather(p, 0, p->t->offset, &out);
}

/* Numbers */

/* The host's locale may have another decimal point, of one or more bytes. */
static int plain_point(char *text) {
  char *to = text;
  for (const char *from = text; *from; from++) {
    if (strchr("0123456789+-eainf", *from))
      *to++ = *from;
    else if (to == text || to[-1] != '.')
      *to++ = '.';
  }
  *to = '\0';
  return (int)(to - text);
}

static int format_float(const printer *p, double value, char text[CELL_TEXT]) {
  if (isnan(value)) return snprintf(text, CELL_TEXT, "nan");
  if (isinf(value)) return snprintf(text, CELL_TEXT, value > 0 ? "inf" : "-inf");
  if (p->style == STYLE_WHOLE) return snprintf(text, CELL_TEXT, "%.0f", value);
  snprintf(text, CELL_TEXT, p->style == STYLE_FIXED ? "%.*f" : "%.*e",
           p->options.precision, value);
  return plain_point(text);
}

static int format_cell(const printer *p, cell c, char text[PAIR_TEXT]) {
  if (p->style == STYLE_BOOL) return snprintf(text, PAIR_TEXT, c.i ? "true" : "false");
  if (p->style == STYLE_INT) return snprintf(text, PAIR_TEXT, "%lld", (long long)c.i);
  int n = format_float(p, c.f, text);
  if (!nyx__complex_dtype(p->t->dtype)) return n;
  char imag[CELL_TEXT];
  format_float(p, c.imag, imag);
  return n + snprintf(text + n, (size_t)(PAIR_TEXT - n), "%s%si",
                      imag[0] == '-' ? "" : "+", imag);
}

/* Fractions are shown fixed while all digits mean something and nothing that is not zero
 * looks like it. */
static style choose_style(const printer *p) {
  if (p->t->dtype == NYX_BOOL) return STYLE_BOOL;
  if (!holds_floats(p)) return STYLE_INT;
  double most = 0, least = INFINITY;
  bool whole = true;
  for (int64_t i = 0; i < 2 * p->count; i++) {
    const cell *c = &p->cells[i / 2];
    double size = fabs(i % 2 ? c->imag : c->f);
    if (!isfinite(size) || size == 0) continue;
    if (size > most) most = size;
    if (size < least) least = size;
    if (size != trunc(size)) whole = false;
  }
  if (whole && most < 1e10) return STYLE_WHOLE;
  bool fits = most < 1e6 && least >= pow(10, -p->options.precision);
  return fits && !whole ? STYLE_FIXED : STYLE_SCIENTIFIC;
}

static void choose_format(printer *p) {
  p->style = choose_style(p);
  char text[PAIR_TEXT];
  for (int64_t i = 0; i < p->count; i++) {
    int n = format_cell(p, p->cells[i], text);
    if (n > p->width) p->width = n;
  }
}

static void add_cell(printer *p, cell c) {
  char text[PAIR_TEXT];
  int n = format_cell(p, c, text);
  add_blanks(p, p->width - n);
  add(p, text, (size_t)n);
}

/* Rows, blocks, the last line */

/* How many columns fit a line: a blank, then columns two blanks apart. */
static int64_t columns_per_line(const printer *p) {
  int width = p->width;
  if (width < 3 && is_cut(p, p->t->ndim - 1)) width = 3; /* "..." */
  int64_t n = (p->options.line_width + 1) / (width + 2);
  return n > 0 ? n : 1;
}

/* The columns of the last dimension: those shown, and the gap as one more. */
static int64_t columns(const printer *p) {
  int d = p->t->ndim - 1;
  return p->shown[d] + is_cut(p, d);
}

/* Columns begin..end-1 of one row, whose elements are `row`. */
static void add_row(printer *p, const cell *row, int64_t begin, int64_t end) {
  int d = p->t->ndim - 1;
  for (int64_t c = begin; c < end; c++) {
    add_text(p, c > begin ? "  " : " ");
    bool past_gap = is_cut(p, d) && c > p->edge[d];
    if (is_cut(p, d) && c == p->edge[d])
      add_text(p, "...");
    else
      add_cell(p, row[c - past_gap]);
  }
  add_text(p, "\n");
}

/* The position of column c; at the gap, of the one before it. */
static int64_t column_position(const printer *p, int64_t c) {
  int d = p->t->ndim - 1;
  bool past_edge = is_cut(p, d) && c >= p->edge[d];
  return position(p, d, c - past_edge) + p->options.index_base;
}

/* A table of rows and columns; one that is too wide comes in groups of columns. */
static void add_block(printer *p, const cell *cells) {
  int rows_dim = p->t->ndim - 2;
  int64_t all = columns(p), step = columns_per_line(p);
  for (int64_t begin = 0; begin < all; begin += step) {
    int64_t end = all - begin > step ? begin + step : all;
    if (all > step) {
      add_text(p, begin ? "\nColumns " : "Columns ");
      bool gap = is_cut(p, rows_dim + 1) && begin == p->edge[rows_dim + 1];
      add_int(p, column_position(p, begin + gap));
      add_text(p, " to ");
      add_int(p, column_position(p, end - 1));
      add_text(p, ":\n");
    }
    for (int64_t r = 0; r < p->shown[rows_dim] && p->status == NYX_OK; r++) {
      if (is_cut(p, rows_dim) && r == p->edge[rows_dim]) add_text(p, " ...\n");
      add_row(p, cells + r * p->shown[rows_dim + 1], begin, end);
    }
  }
}

/* One dimension: as many elements to a line as fit. */
static void add_list(printer *p) {
  int64_t all = columns(p), step = columns_per_line(p);
  for (int64_t begin = 0; begin < all && p->status == NYX_OK; begin += step)
    add_row(p, p->cells, begin, all - begin > step ? begin + step : all);
}

static void add_heading(printer *p, const int64_t *index) {
  add_text(p, "(");
  for (int d = 0; d < p->t->ndim - 2; d++) {
    add_int(p, position(p, d, index[d]) + p->options.index_base);
    add_text(p, ",");
  }
  add_text(p, ".,.) =\n");
}

/* A block for every position shown of the outer dimensions, "..." where some are not. */
static void add_blocks(printer *p) {
  int outer = p->t->ndim - 2;
  int64_t index[NYX_MAX_DIMS] = {0};
  int64_t step = p->shown[outer] * p->shown[outer + 1];
  for (const cell *cells = p->cells; p->status == NYX_OK; cells += step) {
    if (outer) add_heading(p, index);
    add_block(p, cells);
    int d = outer - 1;
    while (d >= 0 && ++index[d] == p->shown[d]) index[d--] = 0;
    if (d < 0) return;
    add_text(p, "\n");
    if (is_cut(p, d) && index[d] == p->edge[d]) add_text(p, "...\n\n");
  }
}

/* Inside a transform the elements shown are not all there is to a tensor. */
static void add_levels(printer *p) {
  bool tangent = false, imaginary = false;
  for (const nyx_tensor *t = p->t; t->lift; t = t->lift->value) {
    if (t->lift->batch) {
      add_text(p, ", the first of ");
      add_int(p, t->lift->value->shape[0]);
      add_text(p, " entries of a batch");
    }
    imaginary |= t->lift->is_complex;
    tangent |= !t->lift->batch && !t->lift->is_complex;
  }
  if (tangent) add_text(p, ", with a tangent");
  if (imaginary) add_text(p, ", with an imaginary part");
}

static void add_last_line(printer *p) {
  nyx_tensor *t = p->t;
  add_text(p, "[");
  add_text(p, nyx_dtype_name(t->dtype));
  add_text(p, t->ndim ? " tensor of size " : " tensor of 0 dimensions");
  add_text(p, NYX__SHAPE(t));
  if (!nyx__on_cpu(t)) {
    add_text(p, " on ");
    add_text(p, nyx_device_name(t->storage->device));
  }
  if (nyx_tensor_requires_grad(t)) add_text(p, ", requires_grad");
  add_levels(p);
  add_text(p, "]");
}

static nyx_status print(printer *p) {
  if (p->t->numel > 0) {
    choose_shown(p);
    NYX_TRY(read_cells(p));
    choose_format(p);
    if (p->t->ndim == 0) {
      add_cell(p, p->cells[0]);
      add_text(p, "\n");
    } else if (p->t->ndim == 1) {
      add_list(p);
    } else {
      add_blocks(p);
    }
  }
  add_last_line(p);
  return p->status;
}

static int option(int value, int preset, int least, int most) {
  if (value <= 0) return preset;
  return value < least ? least : value > most ? most : value;
}

nyx_status nyx_tensor_format(nyx_context *ctx, nyx_tensor *t,
                             const nyx_print_options *options, char **out) {
  *out = NULL;
  nyx_print_options o = {0, 0, 0, 0, 0};
  if (options) o = *options;
  o.precision = option(o.precision, 4, 1, 17);
  o.edge_items = option(o.edge_items, 3, 1, 1 << 20);
  o.threshold = option(o.threshold, 1000, 1, INT32_MAX);
  if (!o.index_base) o.index_base = ctx->index_base;
  o.line_width = option(o.line_width, 80, 1, 1 << 20);
  printer p = {.ctx = ctx, .t = t, .options = o};
  nyx_status status = print(&p);
  nyx_memory_free(p.cells);
  if (status == NYX_OK)
    *out = p.text;
  else
    nyx_memory_free(p.text);
  return status;
}
