/* Plans of Fourier transforms. They belong to the process, not to a tensor or a context,
 * so their memory is not what nyx_memory_get_stats counts. Read next: plan.h, lines.c. */
#include "plan.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#define KEPT 16 /* plans */

static const int radices[] = {8, 5, 4, 3, 2, 7, 11, 13};

/* Divides all factors that passes can do out of n; passes NULL: only that. */
static int64_t divide(int64_t n, nyx_fft_passes *passes) {
  for (size_t i = 0; i < sizeof radices / sizeof *radices; i++) {
    for (; n % radices[i] == 0 && n > 1; n /= radices[i])
      if (passes) passes->radix[passes->count++] = radices[i];
  }
  return n;
}

int64_t nyx__fft_smooth(int64_t n) {
  while (divide(n, NULL) != 1) n++;
  return n;
}

/* Exact to the last bit at eighths of a turn, and as good everywhere: the angle is taken
 * within the first of them. */
void nyx__fft_root(int64_t k, int64_t n, int type, void *out) {
  k %= n;
  bool below = 2 * k > n; /* the lower half: conjugate */
  if (below) k = n - k;
  bool left = 4 * k > n;                        /* cos < 0 */
  int64_t top = 2 * (left ? n - 2 * k : 2 * k); /* of n that make a quarter of a turn */
  bool steep = 2 * top > n; /* beyond an eighth: sin and cos change places */
  double angle = M_PI / 2 * (double)(steep ? n - top : top) / (double)n;
  double c = steep ? sin(angle) : cos(angle), s = steep ? cos(angle) : sin(angle);
  if (left) c = -c;
  if (!below) s = -s;
  if (type == 0) {
    ((float *)out)[0] = (float)c;
    ((float *)out)[1] = (float)s;
  } else {
    ((double *)out)[0] = c;
    ((double *)out)[1] = s;
  }
}

static nyx__fft_plan *make(int64_t n, int type) {
  nyx__fft_plan *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  atomic_init(&p->refs, 1);
  p->n = p->passes.n = n;
  p->type = type;
  p->chirp = divide(n, &p->passes) != 1;
  if (p->chirp) return p;
  size_t item = 2 * (type ? sizeof(double) : sizeof(float)), count = 0;
  int64_t length = n;
  for (int i = 0; i < p->passes.count; length /= p->passes.radix[i++])
    count += (size_t)(length / p->passes.radix[i] * (p->passes.radix[i] - 1) +
                      p->passes.radix[i]);
  char *at = p->block = malloc(count * item + 1);
  if (!at) {
    free(p);
    return NULL;
  }
  length = n;
  for (int i = 0; i < p->passes.count; i++) {
    int r = p->passes.radix[i];
    p->passes.twiddle[i] = at;
    for (int64_t k = 0; k < length / r; k++)
      for (int j = 1; j < r; j++, at += item) nyx__fft_root(k * j, length, type, at);
    p->passes.root[i] = at;
    for (int j = 0; j < r; j++, at += item) nyx__fft_root(j, r, type, at);
    length /= r;
  }
  return p;
}

void nyx__fft_plan_release(nyx__fft_plan *p) {
  if (!p || atomic_fetch_sub(&p->refs, 1) > 1) return;
  free(p->block);
  free(atomic_load(&p->roots));
  free(atomic_load(&p->filter));
  free(p);
}

void *nyx__fft_keep(_Atomic(void *) *at, void *block) {
  void *none = NULL;
  if (!block || atomic_compare_exchange_strong(at, &none, block)) return block;
  free(block);
  return none;
}

const void *nyx__fft_roots(nyx__fft_plan *p) {
  void *roots = atomic_load(&p->roots);
  size_t item = 2 * (p->type ? sizeof(double) : sizeof(float));
  if (roots) return roots;
  if (!(roots = malloc((size_t)p->n * item))) return NULL;
  for (int64_t k = 0; k < p->n; k++)
    nyx__fft_root(k, p->n, p->type, (char *)roots + (size_t)k * item);
  return nyx__fft_keep(&p->roots, roots);
}

/* The plans of late, the latest first. */
static nyx__fft_plan *kept[KEPT];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static nyx__fft_plan *find(int64_t n, int type) {
  for (int i = 0; i < KEPT && kept[i]; i++) {
    nyx__fft_plan *p = kept[i];
    if (p->n != n || p->type != type) continue;
    for (; i > 0; i--) kept[i] = kept[i - 1];
    kept[0] = p;
    atomic_fetch_add(&p->refs, 1);
    return p;
  }
  return NULL;
}

nyx__fft_plan *nyx__fft_plan_get(int64_t n, int type) {
  pthread_mutex_lock(&lock);
  nyx__fft_plan *p = find(n, type), *oldest = NULL;
  if (!p && (p = make(n, type))) {
    oldest = kept[KEPT - 1];
    for (int i = KEPT - 1; i > 0; i--) kept[i] = kept[i - 1];
    kept[0] = p;
    atomic_fetch_add(&p->refs, 1);
  }
  pthread_mutex_unlock(&lock);
  nyx__fft_plan_release(oldest);
  return p;
}
