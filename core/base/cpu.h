/* What this CPU can do: features by CPUID, counted only when the operating system saves
 * their registers (XGETBV), on 64-bit ARM as the system says. What does not apply is
 * false, zero or "". Read next: core/device/cpu/path.c, which chooses kernels by it. */
#ifndef NYX_BASE_CPU_H
#define NYX_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nyx_cpu_info {
  bool sse2, sse42, avx, avx2, fma, f16c, bmi2;
  bool avx512f, avx512bw, avx512dq, avx512vl, avx512cd;
  bool avx512vnni, avx512bf16, avx512fp16, avx512vpopcntdq, avx512vbmi;
  bool avxvnni;                      /* the 256-bit form */
  bool amx_tile, amx_int8, amx_bf16; /* a process asks Linux for permission before use */
  bool neon, dotprod;                /* 64-bit ARM */
  int family, model;
  char vendor[13];    /* "GenuineIntel", "AuthenticAMD" */
  char brand[49];     /* "AMD EPYC 9B45", blanks trimmed */
  int cores;          /* this process may use, by affinity and by cgroup; at least 1 */
  size_t l1d, l2, l3; /* bytes; per core, per core, shared; 0 if unknown */
  size_t line;        /* bytes of a cache line; 0 if unknown */
} nyx_cpu_info;

/* Found out once; never NULL; safe from any thread. */
const nyx_cpu_info *nyx__cpu_info(void);

#endif
