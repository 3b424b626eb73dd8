/* Which unit computes products of narrow types: what the path has, and what NYX_CPU or
 * the CPU's features allow beyond it. AMX tiles are asked for at the first such product
 * and not before: with them every frame of a signal in this process grows by 8 KiB.
 * Read next: kernels/cpu/low.h, path.c. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include <nyx/device.h>

#include "../../../kernels/cpu/cpu.h"
#include "../../../kernels/cpu/low.h"
#include "../../base/cpu.h"

extern const nyx_low_kernel nyx__low_bytes_avxvnni[2], nyx__low_bytes_avx512vnni[2],
    nyx__low_bytes_dotprod[2];
extern const nyx_low_kernel nyx__low_avx512bf16, nyx__low_amx[3];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nyx_low_kernels chosen;

static bool path_is(const char *name) {
  return strcmp(nyx_cpu_path(), name) == 0;
}

#if defined(NYX_UNIT_amx) && defined(__linux__) && defined(SYS_arch_prctl)
static sigjmp_buf refused;

static void refuse(int signal) {
  (void)signal;
  siglongjmp(refused, 1);
}

/* Some virtual machines announce tiles, grant them and do not have them. */
static bool tiles_run(void) {
  struct sigaction catch = {.sa_handler = refuse}, before;
  bool run = false;
  sigemptyset(&catch.sa_mask);
  if (sigaction(SIGILL, &catch, &before) != 0) return false;
  if (sigsetjmp(refused, 1) == 0) {
    nyx__low_amx[0].begin();
    nyx__low_amx[0].end();
    run = true;
  }
  sigaction(SIGILL, &before, NULL);
  return run;
}

/* Linux gives the tiles' 8 KiB of state to processes that ask (arch/x86/xstate.rst), all
 * their threads; it refuses where the stack of a signal handler is too small for it. */
static bool ask_for_tiles(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 &&
         tiles_run();
}
#elif defined(NYX_UNIT_amx)
static bool ask_for_tiles(void) {
  return false;
}
#endif

static void choose(void) {
  bool tiles = path_is("amx"), dots = path_is("avx512bf16");
  chosen = *nyx__cpu_kernels()->low;
#ifdef NYX_UNIT_avxvnni
  if (path_is("avxvnni")) {
    chosen.s8 = &nyx__low_bytes_avxvnni[0];
    chosen.u8 = &nyx__low_bytes_avxvnni[1];
  }
#endif
#ifdef NYX_UNIT_avx512vnni
  if (path_is("avx512vnni") || ((tiles || dots) && nyx__cpu_info()->avx512vnni)) {
    chosen.s8 = &nyx__low_bytes_avx512vnni[0];
    chosen.u8 = &nyx__low_bytes_avx512vnni[1];
  }
#endif
#ifdef NYX_UNIT_dotprod
  if (path_is("dotprod")) {
    chosen.s8 = &nyx__low_bytes_dotprod[0];
    chosen.u8 = &nyx__low_bytes_dotprod[1];
  }
#endif
#ifdef NYX_UNIT_avx512bf16
  if (dots) chosen.bf16 = &nyx__low_avx512bf16;
#endif
#ifdef NYX_UNIT_amx
  if (tiles && ask_for_tiles()) {
    chosen.bf16 = &nyx__low_amx[0];
    chosen.s8 = &nyx__low_amx[1];
    chosen.u8 = &nyx__low_amx[2];
  }
#endif
  (void)tiles, (void)dots;
}

const nyx_low_kernels *nyx__low_kernels(void) {
  pthread_once(&once, choose);
  return &chosen;
}

const char *nyx_cpu_unit(nyx_dtype dtype) {
  const nyx_low_kernels *kernels = nyx__low_kernels();
  const nyx_low_kernel *kernel = dtype == NYX_BFLOAT16  ? kernels->bf16
                                 : dtype == NYX_FLOAT16 ? kernels->f16
                                 : dtype == NYX_INT8    ? kernels->s8
                                                        : NULL;
  if (kernel) return kernel->unit;
  bool half = dtype == NYX_BFLOAT16 || dtype == NYX_FLOAT16;
  return half ? "float32, converted" : NULL;
}
