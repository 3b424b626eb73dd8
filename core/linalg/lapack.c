/* Finds LAPACK's routines in the library that blas.c has opened, as OpenBLAS holds them
 * too. They run in the calling thread: see blas.c. Read next: factor.c. */
#include "lapack.h"

#include <pthread.h>
#include <stdio.h>

#include "blas.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nyx_lapack lapack[2]; /* float32, float64 */
static bool found;

static bool find(nyx_lapack *l, char type) {
  const struct {
    const char *name;
    void *function;
  } routines[] = {{"potrf", &l->potrf}, {"getrf", &l->getrf}, {"laswp", &l->laswp},
                  {"geqrf", &l->geqrf}, {"orgqr", &l->orgqr}, {"ormqr", &l->ormqr},
                  {"larft", &l->larft}, {"larfb", &l->larfb}, {"trsm", &l->trsm}};
  for (size_t i = 0; i < sizeof routines / sizeof *routines; i++) {
    char name[16];
    snprintf(name, sizeof name, "%c%s_", type, routines[i].name);
    if (!nyx__blas_symbol(name, routines[i].function)) return false;
  }
  return true;
}

static void find_once(void) {
  found = find(&lapack[0], 's') && find(&lapack[1], 'd');
}

nyx_status nyx__lapack(nyx_context *ctx, nyx_dtype dtype, const nyx_lapack **out) {
  pthread_once(&once, find_once);
  if (!found) return nyx__error(ctx, LAPACK_MISSING, nyx_blas_describe());
  *out = &lapack[dtype == NYX_FLOAT64];
  return NYX_OK;
}
