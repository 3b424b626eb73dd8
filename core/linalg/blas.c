/* Opens OpenBLAS at run time, with the kernels that fit this CPU: its own table may be
 * older than the CPU and then chooses ones that reach a quarter of the speed. NYX_BLAS
 * names another library, or "none". Read next: gemm.c. */
#include "blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/cpu/cpu.h"
#include "../base/cpu.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nyx_blas blas;
static bool found;
static void *library; /* where `found` */
static char description[256] = "none (built-in product)";

/* A variable of the environment set for a while. */
typedef struct env_change {
  const char *name;
  char *before; /* NULL: it was not set */
  bool changed;
} env_change;

static void env_set(env_change *e, const char *name, const char *value) {
  const char *before = getenv(name);
  *e = (env_change){.name = name, .before = before ? strdup(before) : NULL};
  if (before && !e->before) return; /* no memory to remember it: leave it alone */
  e->changed = setenv(name, value, 1) == 0;
}

static void env_restore(env_change *e) {
  if (e->changed && e->before) {
    setenv(e->name, e->before, 1);
  } else if (e->changed) {
    unsetenv(e->name);
  }
  free(e->before);
}

/* The name OpenBLAS has for the best kernels this CPU runs; NULL: let it choose. */
static const char *core_type(void) {
  const char *width = nyx__cpu_kernels()->width;
  if (strcmp(width, "avx512") == 0) return "SkylakeX";
  if (strcmp(width, "avx2") == 0) return "Haswell";
  /* The base path on a CPU with more was asked for: keep to it. */
  return nyx__cpu_info()->avx2 ? "Nehalem" : NULL;
}

/* OpenBLAS reads both variables once, while it is loaded. One thread: the product is
 * split over Nyx's own threads, and OpenBLAS would start its own otherwise. */
static void *open_tuned(const char *name) {
  env_change core = {0}, threads = {0};
  const char *type = core_type();
  if (type && !getenv("OPENBLAS_CORETYPE")) env_set(&core, "OPENBLAS_CORETYPE", type);
  env_set(&threads, "OPENBLAS_NUM_THREADS", "1");
  void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  env_restore(&threads);
  env_restore(&core);
  return lib;
}

static void *open_library(bool *foreign) {
  const char *chosen = getenv("NYX_BLAS");
  if (chosen && strcmp(chosen, "none") == 0) return NULL;
  static const char *const names[] = {"libopenblas.so.0", "libopenblas.so",
                                      "libopenblas.dylib"};
  const char *const *list = chosen && *chosen ? &chosen : names;
  int count = list == names ? (int)(sizeof names / sizeof *names) : 1;
  for (int i = 0; i < count; i++) {
    void *lib = dlopen(list[i], RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    *foreign = lib != NULL;
    if (!lib) lib = open_tuned(list[i]);
    if (lib) return lib;
  }
  if (chosen && *chosen) {
    snprintf(description, sizeof description,
             "none (built-in product; NYX_BLAS: cannot open %.120s)", chosen);
  }
  return NULL;
}

/* C has no conversion from an object pointer to a function pointer; POSIX promises this.
 */
static bool symbol(void *lib, const char *name, void *function) {
  void *address = dlsym(lib, name);
  memcpy(function, &address, sizeof address);
  return address != NULL;
}

static bool refuse(void *lib, const char *why) {
  snprintf(description, sizeof description, "none (built-in product; %s)", why);
  dlclose(lib);
  return false;
}

/* Fills `blas` and the description from an open library. */
static bool adopt(void *lib, bool foreign) {
  if (!symbol(lib, "cblas_sgemm", &blas.sgemm) ||
      !symbol(lib, "cblas_dgemm", &blas.dgemm)) {
    return refuse(lib, "the library found has no cblas_sgemm");
  }
  char *(*config)(void), *(*core)(void);
  int (*parallel)(void), (*threads)(void);
  void (*set_threads)(int);
  if (!symbol(lib, "openblas_get_config", &config) ||
      !symbol(lib, "openblas_get_corename", &core) ||
      !symbol(lib, "openblas_get_parallel", &parallel) ||
      !symbol(lib, "openblas_get_num_threads", &threads) ||
      !symbol(lib, "openblas_set_num_threads", &set_threads)) {
    snprintf(description, sizeof description, "the library of NYX_BLAS");
    return true;
  }
  const char *text = config();
  if (strstr(text, "USE64BITINT")) {
    return refuse(lib, "the OpenBLAS found has 64-bit integers");
  }
  if (parallel() == 0 && !strstr(text, "USE_LOCKING")) {
    return refuse(lib, "the OpenBLAS found is not safe with threads");
  }
  char version[32] = "";
  if (sscanf(text, "OpenBLAS %31s", version) != 1) version[0] = 0;
  int used = snprintf(description, sizeof description, "OpenBLAS %s, %s kernels", version,
                      core());
  if (!foreign) {
    set_threads(1);
  } else if (used > 0 && (size_t)used < sizeof description) {
    /* Its settings belong to whoever loaded it. */
    snprintf(description + used, sizeof description - (size_t)used,
             ", loaded by the host with %d threads", threads());
  }
  return true;
}

static void open_once(void) {
  bool foreign = false;
  void *lib = open_library(&foreign);
  found = lib && adopt(lib, foreign);
  if (found) library = lib;
}

const nyx_blas *nyx__blas(void) {
  pthread_once(&once, open_once);
  return found ? &blas : NULL;
}

bool nyx__blas_symbol(const char *name, void *function) {
  pthread_once(&once, open_once);
  return found && symbol(library, name, function);
}

const char *nyx_blas_describe(void) {
  pthread_once(&once, open_once);
  return description;
}
