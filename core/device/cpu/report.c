/* What the CPU has, and how the products use it, for people: nyx.cpu_info, --doctor. Read
 * next: core/base/cpu.c, kernels/cpu/gemm.c. */
#include <nyx/device.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../../../kernels/cpu/cpu.h"
#include "../../../kernels/cpu/gemm.h"
#include "../../../kernels/cpu/low.h"
#include "../../base/cpu.h"
#include "../../linalg/gemm.h"

/* Of the path that the tables are of. */
static int vector_bytes(void) {
  const char *width = nyx__cpu_kernels()->width;
  if (strcmp(width, "avx512") == 0) return 64;
  return strcmp(width, "avx2") == 0 ? 32 : 16;
}

static int vector_registers(void) {
#if defined(__aarch64__)
  return 32;
#else
  return vector_bytes() == 64 ? 32 : 16;
#endif
}

/* The extensions that decide which kernels run, and those that later ones may use. */
static pthread_once_t named = PTHREAD_ONCE_INIT;
static char features[128];

static void name_features(void) {
  const nyx_cpu_info *cpu = nyx__cpu_info();
  const struct {
    bool has;
    const char *name;
  } all[] = {{cpu->sse42, "sse4.2"},
             {cpu->avx, "avx"},
             {cpu->avx2, "avx2"},
             {cpu->fma, "fma"},
             {cpu->avxvnni, "avxvnni"},
             {cpu->avx512f, "avx512f"},
             {cpu->avx512bw, "avx512bw"},
             {cpu->avx512dq, "avx512dq"},
             {cpu->avx512vl, "avx512vl"},
             {cpu->avx512vnni, "avx512vnni"},
             {cpu->avx512bf16, "avx512bf16"},
             {cpu->amx_tile, "amx-tile"},
             {cpu->neon, "neon"},
             {cpu->dotprod, "dotprod"}};
  size_t length = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].has)
      length += (size_t)snprintf(features + length, sizeof features - length, "%s%s",
                                 length ? " " : "", all[i].name);
}

void nyx_cpu_get(nyx_cpu_facts *out) {
  const nyx_cpu_info *cpu = nyx__cpu_info();
  pthread_once(&named, name_features);
  *out = (nyx_cpu_facts){.name = cpu->brand,
                         .features = features,
                         .cores = cpu->cores,
                         .line = cpu->line,
                         .l1 = cpu->l1d,
                         .l2 = cpu->l2,
                         .l3 = cpu->l3,
                         .vector_bytes = vector_bytes(),
                         .vector_registers = vector_registers(),
                         .in_place_bytes = (size_t)nyx__gemm_in_place_bytes()};
}

/* Vectors: those of the result, of a row of B, and one of A. */
static void describe_wide(nyx_dtype dtype, nyx_cpu_tile *out) {
  const nyx_gemm_kernel *kernel = &nyx__cpu_kernels()->gemm->type[dtype == NYX_FLOAT64];
  int64_t item = (int64_t)nyx_dtype_size(dtype);
  int vectors = (int)(kernel->tile_cols * item / vector_bytes());
  int64_t depth = nyx__gemm_depth(kernel, item);
  *out = (nyx_cpu_tile){.unit = "vectors",
                        .rows = kernel->tile_rows,
                        .columns = kernel->tile_cols,
                        .registers = (int)kernel->tile_rows * vectors + vectors + 1,
                        .depth = depth,
                        .a_bytes = (size_t)(kernel->block_rows * depth * item),
                        .b_bytes = (size_t)(kernel->tile_cols * depth * item)};
}

bool nyx_cpu_tile_of(nyx_dtype dtype, nyx_cpu_tile *out) {
  const nyx_low_kernels *kernels = nyx__low_kernels();
  const nyx_low_kernel *kernel = NULL;
  switch (dtype) {
    case NYX_FLOAT32:
    case NYX_FLOAT64: describe_wide(dtype, out); return true;
    case NYX_BFLOAT16: kernel = kernels->bf16; break;
    case NYX_FLOAT16: kernel = kernels->f16; break;
    case NYX_INT8: kernel = kernels->s8; break;
    case NYX_UINT8: kernel = kernels->u8; break;
    default: break;
  }
  if (!kernel) return false;
  int64_t terms = kernel->depth * kernel->item;
  *out = (nyx_cpu_tile){.unit = kernel->unit,
                        .rows = kernel->tile_rows,
                        .columns = kernel->tile_cols,
                        .depth = kernel->depth,
                        .a_bytes = (size_t)(kernel->tile_rows * terms),
                        .b_bytes = (size_t)(kernel->tile_cols * terms)};
  return true;
}
