/* Prints the OpenCL C of one row for one combination of dtypes: the dialect, the row's
 * text as a function over a scalar T, and a kernel around it. Read next: opencl.c. */
#include "source.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/reduce.h"

#define TEXT(...) TEXT_OF(__VA_ARGS__)
#define TEXT_OF(...) #__VA_ARGS__

/* Text that grows; `data` NULL after an allocation failed. */
typedef struct text {
  char *data;
  size_t used, room;
} text;

static void put(text *t, const char *format, ...) NYX_PRINTF(2, 3);
static void put(text *t, const char *format, ...) {
  va_list args;
  if (!t->data) return;
  for (;;) {
    va_start(args, format);
    int n = vsnprintf(t->data + t->used, t->room - t->used, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < t->room - t->used) {
      t->used += (size_t)n;
      return;
    }
    char *wider = n < 0 ? NULL : nyx_memory_alloc(2 * t->room + (size_t)n);
    if (wider) memcpy(wider, t->data, t->used + 1);
    nyx_memory_free(t->data);
    t->data = wider;
    t->room = 2 * t->room + (size_t)n;
    if (!wider) return;
  }
}

static text start(nyx_dtype compute, bool narrow) {
  static const char *const type[NYX_DTYPE_COUNT] = {[NYX_FLOAT32] = "float",
                                                    [NYX_FLOAT64] = "double",
                                                    [NYX_INT32] = "int",
                                                    [NYX_INT64] = "long"};
  text t = {nyx_memory_alloc(16384), 0, 16384};
  if (t.data) t.data[0] = '\0';
  if (compute == NYX_FLOAT64) put(&t, "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n");
  put(&t, "#define T %s\n#define NYX_T_%s 1\n", type[compute],
      nyx_dtype_is_float(compute) ? "FLOAT" : "INT");
  put(&t, "#define NYX_T_BITS %d\n", (int)nyx_dtype_size(compute) * 8);
  put(&t, "%s\n", nyx__gpu_dialect);
  if (nyx_dtype_is_float(compute)) put(&t, "%s\n", nyx__gpu_special);
  put(&t, "typedef %s I;\ntypedef %s U;\n", narrow ? "int" : "long",
      narrow ? "uint" : "ulong");
  put(&t,
      "typedef struct { I n, ndim, shape[%d], stride[%d][%d], offset[%d]; } geometry;\n",
      NYX_MAX_DIMS, NYX_CL_OPERANDS, NYX_MAX_DIMS, NYX_CL_OPERANDS);
  return t;
}

static const char *storage_type(nyx_dtype dtype) {
  switch (dtype) {
    case NYX_FLOAT32: return "float";
    case NYX_FLOAT64: return "double";
    case NYX_FLOAT16: return "half";
    case NYX_BFLOAT16: return "ushort";
    case NYX_INT8: return "char";
    case NYX_UINT8:
    case NYX_BOOL: return "uchar";
    case NYX_INT32: return "int";
    default: return "long";
  }
}

static void put_load(text *t, nyx_dtype dtype, const char *p, const char *i) {
  if (dtype == NYX_FLOAT16)
    put(t, "(T)vload_half(%s, %s)", i, p);
  else if (dtype == NYX_BFLOAT16)
    put(t, "(T)as_float((uint)%s[%s] << 16)", p, i);
  else
    put(t, "(T)%s[%s]", p, i);
}

/* Stores v, of type T. Floats that an integer cannot hold are clamped to its range and
 * nan becomes 0, as on the CPU. */
static void put_store(text *t, nyx_dtype compute, nyx_dtype dtype, const char *p,
                      const char *i) {
  bool from_float = nyx_dtype_is_float(compute);
  if (dtype == NYX_BOOL)
    put(t, "%s[%s] = (uchar)(v != (T)0);", p, i);
  else if (dtype == NYX_FLOAT16)
    put(t, "vstore_half_rte((float)v, %s, %s);", i, p);
  else if (dtype == NYX_BFLOAT16)
    put(t,
        "{ uint b = as_uint((float)v); %s[%s] = isnan((float)v) ? (ushort)(b >> 16 | 64) "
        ": (ushort)((b + 0x7FFF + (b >> 16 & 1)) >> 16); }",
        p, i);
  else if (!nyx_dtype_is_float(dtype) && from_float)
    put(t, "%s[%s] = v == v ? convert_%s_sat_rtz(v) : 0;", p, i, storage_type(dtype));
  else
    put(t, "%s[%s] = (%s)v;", p, i, storage_type(dtype));
}

/* The places of element i in all operands of `used`, as at0, at1, ...: one division for
 * each dimension but the first. */
static void put_places(text *t, unsigned used, bool in_order) {
  for (int k = 0; k < NYX_CL_OPERANDS; k++)
    if (used >> k & 1)
      put(t, "  I at%d = s.offset[%d]%s;\n", k, k, in_order ? " + i" : "");
  if (in_order) return;
  put(t,
      "  for (int d = (int)s.ndim - 1; d > 0; d--) {\n"
      "    I up = (I)((U)i / (U)s.shape[d]), c = i - up * s.shape[d];\n");
  for (int k = 0; k < NYX_CL_OPERANDS; k++)
    if (used >> k & 1) put(t, "    at%d += c * s.stride[%d][d];\n", k, k);
  put(t, "    i = up;\n  }\n");
  for (int k = 0; k < NYX_CL_OPERANDS; k++)
    if (used >> k & 1) put(t, "  at%d += i * s.stride[%d][0];\n", k, k);
}

char *nyx__cl_elementwise_source(const nyx_elementwise *job, unsigned number,
                                 const nyx_cl_form *form) {
  static const char *const forward[] = {"x", "y", "z"};
  static const char *const backward[] = {"g", "x", "y", "z", "r"};
  const char *const *name = job->part ? backward : forward;
  int n = job->part ? 5 : 3;
  unsigned used = 1u << (NYX_CL_OPERANDS - 1);
  text t = start(job->compute, form->narrow);
  put(&t, "NYX_FN T nyx_row(");
  for (int k = 0; k < n; k++)
    if (job->in[k]) put(&t, "T %s, ", name[k]);
  put(&t, "T p, T q) {\n  return %s;\n}\n",
      job->part ? job->row->gradient[job->part - 1] : job->row->forward);
  put(&t, "kernel void run(");
  for (int k = 0; k < n; k++) {
    if (!job->in[k]) continue;
    if (number >> k & 1)
      put(&t, "T in%d, ", k);
    else
      put(&t, "global const %s *in%d, ", storage_type(job->in[k]->dtype), k);
    if (!(number >> k & 1)) used |= 1u << k;
  }
  put(&t, "global %s *out, geometry s, T p, T q) {\n", storage_type(job->out->dtype));
  put(&t, "  I i = (I)get_global_id(0);\n  if (i >= s.n) return;\n");
  put_places(&t, used, form->in_order);
  put(&t, "  T v = nyx_row(");
  for (int k = 0; k < n; k++) {
    char p[16], place[16];
    if (!job->in[k]) continue;
    snprintf(p, sizeof p, "in%d", k);
    snprintf(place, sizeof place, "at%d", k);
    if (number >> k & 1)
      put(&t, "%s", p);
    else
      put_load(&t, job->in[k]->dtype, p, place);
    put(&t, ", ");
  }
  put(&t, "p, q);\n  ");
  put_store(&t, job->compute, job->out->dtype, "out", "at5");
  put(&t, "\n}\n");
  return t.data;
}

/* Reductions */

size_t nyx__cl_accumulator(const nyx_reduction *job, bool narrow) {
  size_t value = nyx_dtype_size(job->compute);
  return !job->index ? value : value == 4 && narrow ? 8 : 16;
}

/* An accumulator, and how it begins, takes an element and merges: by the row's text, or
 * the first position of an extreme. */
static void put_accumulator(text *t, const nyx_reduction *job) {
  const nyx_reduce_row *row = job->row;
  if (!job->index) {
    put(t,
        "typedef T acc;\n"
        "NYX_FN acc nyx_begin(T p) { return (%s); }\n"
        "NYX_FN acc nyx_combine(acc a, T x, I at, T c, T p) { return (%s); }\n"
        "NYX_FN acc nyx_merge(acc a, acc b, T p) { return (%s); }\n"
        "NYX_FN T nyx_finish(acc a, T n, T c, T p) { return (%s); }\n",
        row->init, row->combine, row->merge, row->finish);
    return;
  }
  bool least = row->id == NYX__REDUCE_argmin || row->id == NYX__REDUCE_min;
  put(t,
      "typedef struct { T value; I at; } acc;\n"
      "NYX_FN M nyx_before(T x, T a) { return %s; }\n"
      "NYX_FN acc nyx_begin(T p) { acc a = {K(0), -1}; return a; }\n"
      "NYX_FN acc nyx_combine(acc a, T x, I at, T c, T p) {\n"
      "  if (a.at < 0 || nyx_before(x, a.value)) { a.value = x; a.at = at; }\n"
      "  return a;\n}\n",
      least ? TEXT(NYX_REDUCE_LESS(x, a)) : TEXT(NYX_REDUCE_GREATER(x, a)));
  put(t,
      "NYX_FN acc nyx_merge(acc a, acc b, T p) {\n"
      "  if (a.at < 0 || b.at < 0) return a.at < 0 ? b : a;\n"
      "  if (nyx_before(a.value, b.value)) return a;\n"
      "  return nyx_before(b.value, a.value) || b.at < a.at ? b : a;\n}\n"
      "NYX_FN T nyx_finish(acc a, T n, T c, T p) { return a.value; }\n");
}

static void put_parameters(text *t, const nyx_reduction *job, nyx_cl_pass pass) {
  put(t, "kernel void run(global const %s *in, ",
      pass == NYX_CL_MERGE ? "acc" : storage_type(job->in->dtype));
  if (pass == NYX_CL_PARTS)
    put(t, "global acc *parts, ");
  else if (job->out)
    put(t, "global %s *out, ", storage_type(job->out->dtype));
  if (pass != NYX_CL_PARTS && job->index) put(t, "global long *index, ");
  put(t,
      "local acc *shared,\n                geometry kept, geometry s, I blocks, "
      "int down, I length, int rows, T n, T p, long base%s) {\n",
      job->centre ? ", global const T *centre" : "");
}

/* Elements are combined in runs that are merged then: sums of sums err less. */
static void put_loop(text *t, const nyx_reduction *job, nyx_cl_pass pass) {
  put(t,
      "  if (o < kept.n) {\n"
      "    I first = kept.offset[0] + nyx_place(&kept, o);\n"
      "    I i = part * length + r, end = min((part + 1) * length, s.n);\n"
      "    while (i < end) {\n"
      "      acc run = nyx_begin(p);\n"
      "      for (int k = 0; k < 64 && i < end; k++, i += down) {\n"
      "        I at = first + nyx_place(&s, i);\n");
  if (pass == NYX_CL_MERGE) {
    put(t, "        run = nyx_merge(run, in[at], p);\n");
  } else {
    put(t, "        T x = ");
    put_load(t, job->in->dtype, "in", "at");
    put(t, ";\n        run = nyx_combine(run, x, i, c, p);\n");
  }
  put(t, "      }\n      a = nyx_merge(a, run, p);\n    }\n  }\n");
}

/* The work-items of a result, merged pairwise. */
static const char tree[] =
    "  int slot = r * across + column;\n"
    "  shared[slot] = a;\n"
    "  for (int upper = down / 2; upper > 0; upper /= 2) {\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    if (r < upper) {\n"
    "      a = nyx_merge(a, shared[slot + upper * across], p);\n"
    "      shared[slot] = a;\n"
    "    }\n"
    "  }\n"
    "  if (r != 0 || o >= kept.n) return;\n";

char *nyx__cl_reduce_source(const nyx_reduction *job, nyx_cl_pass pass, bool narrow) {
  text t = start(job->compute, narrow);
  put_accumulator(&t, job);
  put(&t,
      "NYX_FN I nyx_place(const geometry *s, I i) {\n"
      "  I at = 0;\n"
      "  for (int d = (int)s->ndim - 1; d > 0; d--) {\n"
      "    I up = (I)((U)i / (U)s->shape[d]);\n"
      "    at += (i - up * s->shape[d]) * s->stride[0][d];\n"
      "    i = up;\n"
      "  }\n"
      "  return at + i * s->stride[0][0];\n"
      "}\n");
  put_parameters(&t, job, pass);
  put(&t,
      "  int me = get_local_id(0), across = %d / down;\n"
      "  int r = rows ? me %% down : me / across, column = rows ? me / down : me %% "
      "across;\n"
      "  I group = (I)get_group_id(0), part = group / blocks;\n"
      "  I o = (group - part * blocks) * across + column;\n"
      "  acc a = nyx_begin(p);\n"
      "  T c = %s;\n",
      NYX_CL_GROUP, job->centre ? "centre[kept.offset[2] + min(o, kept.n - 1)]" : "K(0)");
  put_loop(&t, job, pass);
  put(&t, "%s", tree);
  if (pass == NYX_CL_PARTS) {
    put(&t, "  parts[part * kept.n + o] = a;\n}\n");
    return t.data;
  }
  if (job->out) {
    put(&t, "  T v = nyx_finish(a, n, c, p);\n  ");
    put_store(&t, job->compute, job->out->dtype, "out", "kept.offset[5] + o");
    put(&t, "\n");
  }
  if (job->index) put(&t, "  index[kept.offset[1] + o] = a.at + base;\n");
  put(&t, "}\n");
  return t.data;
}
