/* Prints the OpenCL C of one row for one combination of dtypes: the dialect, the row's
 * text as a function over a scalar T, and a kernel around it. Read next: opencl.c. */
#include "source.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

static text start(nyx_dtype compute) {
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
  put(&t,
      "typedef struct { long n, ndim, shape[%d], stride[%d][%d], offset[%d]; } "
      "geometry;\n",
      NYX_MAX_DIMS, NYX_CL_OPERANDS, NYX_MAX_DIMS, NYX_CL_OPERANDS);
  put(&t,
      "long nyx_place(const geometry *s, int k, long i) {\n"
      "  long at = s->offset[k];\n"
      "  for (int d = (int)s->ndim - 1; d >= 0; d--) {\n"
      "    at += i %% s->shape[d] * s->stride[k][d];\n"
      "    i /= s->shape[d];\n"
      "  }\n"
      "  return at;\n"
      "}\n");
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

char *nyx__cl_elementwise_source(const nyx_elementwise *job, unsigned number) {
  static const char *const forward[] = {"x", "y", "z"};
  static const char *const backward[] = {"g", "x", "y", "z", "r"};
  const char *const *name = job->part ? backward : forward;
  int n = job->part ? 5 : 3;
  text t = start(job->compute);
  put(&t, "T nyx_row(");
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
  }
  put(&t, "global %s *out, geometry s, T p, T q) {\n", storage_type(job->out->dtype));
  put(&t, "  long i = get_global_id(0);\n  if (i >= s.n) return;\n  T v = nyx_row(");
  for (int k = 0; k < n; k++) {
    char p[16], place[40];
    if (!job->in[k]) continue;
    snprintf(p, sizeof p, "in%d", k);
    snprintf(place, sizeof place, "nyx_place(&s, %d, i)", k);
    if (number >> k & 1)
      put(&t, "in%d, ", k);
    else {
      put_load(&t, job->in[k]->dtype, p, place);
      put(&t, ", ");
    }
  }
  put(&t, "p, q);\n  long o = nyx_place(&s, %d, i);\n  ", NYX_CL_OPERANDS - 1);
  put_store(&t, job->compute, job->out->dtype, "out", "o");
  put(&t, "\n}\n");
  return t.data;
}

static text start_reduction(const nyx_reduction *job) {
  const nyx_reduce_row *row = job->row;
  text t = start(job->compute);
  put(&t, "#define NYX_COMBINE(a, x) (%s)\n#define NYX_MERGE(a, b) (%s)\n", row->combine,
      row->merge);
  put(&t, "#define NYX_FINISH(a, n) (%s)\n", row->finish);
  return t;
}

char *nyx__cl_reduce_dims_source(const nyx_reduction *job) {
  text t = start_reduction(job);
  put(&t,
      "kernel void run(global const %s *in, global %s *out, geometry kept, geometry s,\n"
      "                T n, T p) {\n"
      "  long o = get_global_id(0);\n"
      "  if (o >= kept.n) return;\n"
      "  T a = (%s);\n"
      "  long first = nyx_place(&kept, 0, o);\n"
      "  for (long i = 0; i < s.n; i++) {\n"
      "    long at = first + nyx_place(&s, 0, i);\n"
      "    T x = ",
      storage_type(job->in->dtype), storage_type(job->out->dtype), job->row->init);
  put_load(&t, job->in->dtype, "in", "at");
  put(&t,
      ";\n    a = NYX_COMBINE(a, x);\n  }\n  T v = NYX_FINISH(a, n);\n  o += "
      "kept.offset[5];\n  ");
  put_store(&t, job->compute, job->out->dtype, "out", "o");
  put(&t, "\n}\n");
  return t.data;
}

char *nyx__cl_reduce_source(const nyx_reduction *job, int pass) {
  const nyx_reduce_row *row = job->row;
  nyx_dtype compute = job->compute;
  text t = start_reduction(job);
  put(&t,
      "kernel void run(global const %s *in, global %s *out, local T *part, geometry s,\n"
      "                T n, T p) {\n"
      "  int me = get_local_id(0), width = get_local_size(0);\n"
      "  T a = (%s);\n"
      "  for (long i = get_global_id(0); i < s.n; i += get_global_size(0)) {\n    ",
      pass == 0 ? storage_type(job->in->dtype) : "T",
      pass == 0 ? "T" : storage_type(job->out->dtype), row->init);
  if (pass == 0) {
    put(&t, "T x = ");
    put_load(&t, job->in->dtype, "in", "nyx_place(&s, 0, i)");
    put(&t, ";\n    a = NYX_COMBINE(a, x);\n  }\n");
  } else {
    put(&t, "T b = in[i];\n    a = NYX_MERGE(a, b);\n  }\n");
  }
  put(&t,
      "  part[me] = a;\n"
      "  for (int half_width = width / 2; half_width > 0; half_width /= 2) {\n"
      "    barrier(CLK_LOCAL_MEM_FENCE);\n"
      "    if (me < half_width) {\n"
      "      T b = part[me + half_width];\n"
      "      a = NYX_MERGE(a, b);\n"
      "      part[me] = a;\n"
      "    }\n"
      "  }\n"
      "  if (me != 0) return;\n");
  if (pass == 0)
    put(&t, "  out[get_group_id(0)] = a;\n}\n");
  else {
    put(&t, "  T v = NYX_FINISH(a, n);\n  ");
    put_store(&t, compute, job->out->dtype, "out", "s.offset[5]");
    put(&t, "\n}\n");
  }
  return t.data;
}
