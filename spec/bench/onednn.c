/* oneDNN's side of the benchmark, through its C API (version 2 or 3). Reads "time REPEATS
 * CALL" where CALL is a product or a convolution as the cases describe them:
 *   gemm TYPE M N K LAYOUT        gemv TYPE M N LAYOUT       bmm TYPE B M N K
 *   conv N INPUTS OUTPUTS SIZE KERNEL STRIDE GROUPS forward|backward
 * and answers with the seconds of one repeat, or "none". Convolutions run in the layouts
 * the library chooses, whose conversion is not part of the time. Read next: run.py. */
#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_STEPS 2

typedef struct step {
  dnnl_primitive_t primitive;
  dnnl_exec_arg_t args[3];
} step;

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static step steps[MAX_STEPS];
static int n_steps;
static dnnl_memory_t memories[3 * MAX_STEPS];
static int n_memories;
static char current[256];

#define TRY(call)                                                                        \
  do {                                                                                   \
    if ((call) != dnnl_success) return 0;                                                \
  } while (0)

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---------------------------------------------------------------- both versions */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t desc;
typedef const_dnnl_memory_desc_t const_desc;

static int make_desc(desc *out, int n, const dnnl_dim_t *dims, dnnl_data_type_t type,
                     const dnnl_dim_t *strides) {
  if (strides) {
    TRY(dnnl_memory_desc_create_with_strides(out, n, dims, type, strides));
  } else {
    TRY(dnnl_memory_desc_create_with_tag(out, n, dims, type, dnnl_format_tag_any));
  }
  return 1;
}

static int make_matmul(dnnl_primitive_desc_t *out, desc x, desc y, desc z) {
  TRY(dnnl_matmul_primitive_desc_create(out, engine, x, y, NULL, z, NULL));
  return 1;
}

static int make_conv(dnnl_primitive_desc_t *out, int kind, dnnl_primitive_desc_t hint,
                     desc x, desc w, desc y, const dnnl_dim_t *stride,
                     const dnnl_dim_t *pad) {
  const dnnl_dim_t dilation[DNNL_MAX_NDIMS] = {0};
  if (kind == 0) {
    TRY(dnnl_convolution_forward_primitive_desc_create(
        out, engine, dnnl_forward_training, dnnl_convolution_direct, x, w, NULL, y,
        stride, dilation, pad, pad, NULL));
  } else if (kind == 1) {
    TRY(dnnl_convolution_backward_data_primitive_desc_create(
        out, engine, dnnl_convolution_direct, x, w, y, stride, dilation, pad, pad, hint,
        NULL));
  } else {
    TRY(dnnl_convolution_backward_weights_primitive_desc_create(
        out, engine, dnnl_convolution_direct, x, w, NULL, y, stride, dilation, pad, pad,
        hint, NULL));
  }
  return 1;
}

static size_t bytes_of(const_desc d) {
  return dnnl_memory_desc_get_size(d);
}
#else
typedef dnnl_memory_desc_t desc;
typedef const dnnl_memory_desc_t *const_desc;

static int make_desc(desc *out, int n, const dnnl_dim_t *dims, dnnl_data_type_t type,
                     const dnnl_dim_t *strides) {
  if (strides) {
    TRY(dnnl_memory_desc_init_by_strides(out, n, dims, type, strides));
  } else {
    TRY(dnnl_memory_desc_init_by_tag(out, n, dims, type, dnnl_format_tag_any));
  }
  return 1;
}

static int make_matmul(dnnl_primitive_desc_t *out, desc x, desc y, desc z) {
  dnnl_matmul_desc_t op;
  TRY(dnnl_matmul_desc_init(&op, &x, &y, NULL, &z));
  TRY(dnnl_primitive_desc_create(out, &op, NULL, engine, NULL));
  return 1;
}

static int make_conv(dnnl_primitive_desc_t *out, int kind, dnnl_primitive_desc_t hint,
                     desc x, desc w, desc y, const dnnl_dim_t *stride,
                     const dnnl_dim_t *pad) {
  dnnl_convolution_desc_t op;
  if (kind == 0) {
    TRY(dnnl_convolution_forward_desc_init(&op, dnnl_forward_training,
                                           dnnl_convolution_direct, &x, &w, NULL, &y,
                                           stride, pad, pad));
  } else if (kind == 1) {
    TRY(dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &x, &w, &y,
                                                 stride, pad, pad));
  } else {
    TRY(dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &x, &w,
                                                    NULL, &y, stride, pad, pad));
  }
  TRY(dnnl_primitive_desc_create(out, &op, NULL, engine, hint));
  return 1;
}

static size_t bytes_of(const_desc d) {
  return dnnl_memory_desc_get_size(d);
}
#endif

/* ---------------------------------------------------------------- one call */

static void forget(void) {
  for (int i = 0; i < n_steps; i++) dnnl_primitive_destroy(steps[i].primitive);
  for (int i = 0; i < n_memories; i++) dnnl_memory_destroy(memories[i]);
  n_steps = n_memories = 0;
  current[0] = '\0';
}

/* Adds a primitive and memory for its three tensors, filled with small numbers. */
static int add_step(dnnl_primitive_desc_t pd, const int names[3],
                    const dnnl_query_t queries[3], int n_bytes) {
  step *s = &steps[n_steps];
  TRY(dnnl_primitive_create(&s->primitive, pd));
  n_steps++;
  for (int i = 0; i < 3; i++) {
    const_desc d = dnnl_primitive_desc_query_md(pd, queries[i], 0);
    dnnl_memory_t m;
    void *data;
    TRY(dnnl_memory_create(&m, d, engine, DNNL_MEMORY_ALLOCATE));
    memories[n_memories++] = m;
    TRY(dnnl_memory_get_data_handle(m, &data));
    size_t bytes = bytes_of(d);
    if (n_bytes == 4) {
      for (size_t k = 0; k < bytes / 4; k++) ((float *)data)[k] = (float)(k % 7) - 3;
    } else {
      memset(data, n_bytes == 1 ? 3 : 0x3c, bytes); /* 3, or about 0.01 in bfloat16 */
    }
    s->args[i] = (dnnl_exec_arg_t){.arg = names[i], .memory = m};
  }
  dnnl_primitive_desc_destroy(pd);
  return 1;
}

static int prepare_matmul(const char *type, long b, long m, long n, long k,
                          const char *layout) {
  const int names[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
  const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                  dnnl_query_dst_md};
  dnnl_data_type_t in = dnnl_f32, out = dnnl_f32;
  int bytes = 4;
  if (!strcmp(type, "bfloat16")) in = out = dnnl_bf16, bytes = 2;
  if (!strcmp(type, "int8")) in = dnnl_s8, out = dnnl_s32, bytes = 1;
  if (!strcmp(type, "float64")) return 0;
  const dnnl_dim_t xd[] = {b, m, k}, yd[] = {b, k, n}, zd[] = {b, m, n};
  const dnnl_dim_t xs[] = {m * k, layout[0] == 't' ? 1 : k, layout[0] == 't' ? m : 1};
  const dnnl_dim_t ys[] = {k * n, layout[1] == 't' ? 1 : n, layout[1] == 't' ? k : 1};
  const dnnl_dim_t zs[] = {m * n, n, 1};
  desc x, y, z;
  dnnl_primitive_desc_t pd;
  int skip = b == 1; /* no batch dimension */
  return make_desc(&x, 3 - skip, xd + skip, in, xs + skip) &&
         make_desc(&y, 3 - skip, yd + skip, in, ys + skip) &&
         make_desc(&z, 3 - skip, zd + skip, out, zs + skip) &&
         make_matmul(&pd, x, y, z) && add_step(pd, names, queries, bytes);
}

static int prepare_conv(const long *p, int backward) {
  long batch = p[0], in = p[1], out = p[2], size = p[3], kernel = p[4], groups = p[6];
  const dnnl_dim_t stride[DNNL_MAX_NDIMS] = {p[5], p[5]};
  const dnnl_dim_t pad[DNNL_MAX_NDIMS] = {kernel / 2, kernel / 2};
  long result = (size + 2 * (kernel / 2) - kernel) / p[5] + 1;
  const dnnl_dim_t xd[] = {batch, in, size, size}, yd[] = {batch, out, result, result};
  const dnnl_dim_t wd[] = {groups, out / groups, in / groups, kernel, kernel};
  const dnnl_dim_t wd1[] = {out, in, kernel, kernel};
  desc x, w, y;
  dnnl_primitive_desc_t pd, hint;
  if (!make_desc(&x, 4, xd, dnnl_f32, NULL) || !make_desc(&y, 4, yd, dnnl_f32, NULL) ||
      !make_desc(&w, groups > 1 ? 5 : 4, groups > 1 ? wd : wd1, dnnl_f32, NULL) ||
      !make_conv(&hint, 0, NULL, x, w, y, stride, pad))
    return 0;
  if (!backward) {
    const int names[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                    dnnl_query_dst_md};
    return add_step(hint, names, queries, 4);
  }
  const int data[] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST};
  const dnnl_query_t of_data[] = {dnnl_query_diff_src_md, dnnl_query_weights_md,
                                  dnnl_query_diff_dst_md};
  const int weights[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST};
  const dnnl_query_t of_weights[] = {dnnl_query_src_md, dnnl_query_diff_weights_md,
                                     dnnl_query_diff_dst_md};
  int done = make_conv(&pd, 1, hint, x, w, y, stride, pad) &&
             add_step(pd, data, of_data, 4) &&
             make_conv(&pd, 2, hint, x, w, y, stride, pad) &&
             add_step(pd, weights, of_weights, 4);
  dnnl_primitive_desc_destroy(hint);
  return done;
}

static int prepare(const char *call) {
  char type[32], layout[32] = "nn";
  long p[8];
  if (!strcmp(call, current)) return 1;
  forget();
  int done = 0;
  if (sscanf(call, "gemm %31s %ld %ld %ld %31s", type, p, p + 1, p + 2, layout) == 5)
    done = prepare_matmul(type, 1, p[0], p[1], p[2], layout);
  else if (sscanf(call, "gemv %31s %ld %ld %31s", type, p, p + 1, layout) == 4)
    done = prepare_matmul(type, 1, p[0], 1, p[1], layout[0] == 't' ? "tn" : "nn");
  else if (sscanf(call, "bmm %31s %ld %ld %ld %ld", type, p, p + 1, p + 2, p + 3) == 5)
    done = prepare_matmul(type, p[0], p[1], p[2], p[3], "nn");
  else if (sscanf(call, "conv %ld %ld %ld %ld %ld %ld %ld %31s", p, p + 1, p + 2, p + 3,
                  p + 4, p + 5, p + 6, layout) == 8)
    done = prepare_conv(p, layout[0] == 'b');
  if (done) {
    snprintf(current, sizeof current, "%s", call);
  } else {
    forget();
  }
  return done;
}

static void run(long n) {
  for (long i = 0; i < n; i++)
    for (int k = 0; k < n_steps; k++)
      dnnl_primitive_execute(steps[k].primitive, stream, 3, steps[k].args);
  dnnl_stream_wait(stream);
}

int main(void) {
  char line[512], call[256] = "";
  const dnnl_version_t *v = dnnl_version();
  if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success ||
      dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success)
    return 1;
  printf("oneDNN %d.%d.%d\n", v->major, v->minor, v->patch);
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    long n = 0;
    int warm = !strncmp(line, "time", 4);
    if (sscanf(line, "%*s %ld %255[^\n]", &n, call) != 2 || !prepare(call)) {
      if (!strncmp(line, "drop", 4)) forget();
      puts(strncmp(line, "drop", 4) ? "none" : "ok");
    } else {
      if (warm) run(1);
      double start = now();
      run(n);
      printf("%.9g\n", (now() - start) / (double)n);
    }
    fflush(stdout);
  }
  return 0;
}
