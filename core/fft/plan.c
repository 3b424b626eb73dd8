/* Plans of Fourier transforms. They belong to the process, not to a tensor or a context;
 * nyx_memory_trim drops those that no transform is using. Read next: plan.h, lines.c. */
#include "plan.h"

#include <math.h>
#include <nyx/memory.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KEPT 32 /* plans */

static void add(nyx_fft_passes *passes, int radix) {
  if (passes) passes->radix[passes->count++] = radix;
}

/* Divides all factors that passes can do out of n; passes NULL: only that. Eights need
 * the fewest steps for each number; what they leave of the twos makes a four, two of them
 * or, in long lines, where one pass less is worth the registers, a sixteen. */
static int64_t divide(int64_t n, nyx_fft_passes *passes) {
  static const int odd[] = {5, 3, 7, 11, 13};
  int twos = __builtin_ctzll((unsigned long long)n);
  n >>= twos;
  if (twos == 1) add(passes, 2);
  if (twos == 4) add(passes, 4), add(passes, 4), twos = 0;
  if (twos % 3 == 1 && twos > 1) add(passes, 16), twos -= 4;
  for (; twos >= 3; twos -= 3) add(passes, 8);
  if (twos == 2) add(passes, 4);
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
    for (; n % odd[i] == 0; n /= odd[i]) add(passes, odd[i]);
  return n;
}

bool nyx__fft_is_smooth(int64_t n) {
  return divide(n, NULL) == 1;
}

int64_t nyx__fft_smooth(int64_t n) {
  static const int odd[] = {1, 3, 5, 9, 15};
  int64_t best = 0;
  for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
    int64_t size = 16 * odd[i];
    while (size < n) size *= 2;
    if (!best || size < best) best = size;
  }
  return best;
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

/* How many numbers the passes point to. */
static size_t numbers_of(const nyx_fft_passes *t) {
  size_t count = (size_t)(t->n * (t->columns - 1));
  int64_t length = t->n;
  for (int i = 0; i < t->count; length /= t->radix[i++])
    count += (size_t)(length / t->radix[i] * (t->radix[i] - 1) + t->radix[i]);
  return count;
}

static void fill(nyx_fft_passes *t, int type, char *at) {
  size_t part = type ? sizeof(double) : sizeof(float), item = 2 * part;
  for (int c = 1; c < t->columns; c++) {
    for (int64_t k = 0; k < t->n; k++) {
      double root[2];
      nyx__fft_root(k * c, t->n * t->columns, type, root);
      memcpy(at + (size_t)k * part, root, part);
      memcpy(at + (size_t)(t->n + k) * part, (char *)root + part, part);
    }
    at += (size_t)t->n * item;
  }
  int64_t length = t->n;
  for (int i = 0; i < t->count; i++) {
    int r = t->radix[i];
    t->twiddle[i] = at;
    for (int64_t k = 0; k < length / r; k++)
      for (int j = 1; j < r; j++, at += item) nyx__fft_root(k * j, length, type, at);
    t->root[i] = at;
    for (int j = 0; j < r; j++, at += item) nyx__fft_root(j, r, type, at);
    length /= r;
  }
}

/* A root for fft_short_type.h: in lane l of two vectors that of k times the lane's number
 * `by`. */
static char *put_vectors(int64_t k, int64_t by, int64_t n, int type, bool inverse,
                         char *at) {
  const int lanes = nyx__cpu_kernels()->fft->lanes[type];
  const size_t part = type ? sizeof(double) : sizeof(float);
  for (int l = 0; l < lanes; l++) {
    const int64_t power = k + l / 2 * by;
    double root[2], turned[2];
    nyx__fft_root(power, n, type, root);
    nyx__fft_root((l % 2 == 0) != inverse ? n - power % n : power, n, type, turned);
    memcpy(at + (size_t)l * part, root, part);
    memcpy(at + (size_t)(lanes + l) * part, (char *)turned + part, part);
  }
  return at + (size_t)(2 * lanes) * part;
}

/* What short lines of `rows` vectors, or columns, point to beside `turn`. */
static int64_t outer_of(int64_t rows) {
  return rows == 32 || rows == 64 ? 8 : rows == 128 ? 16 : 0;
}

static size_t vectors_of(const nyx_fft_passes *t, bool is_short) {
  const int64_t outer = outer_of(t->n), inner = outer ? t->n / outer : 1;
  const int64_t down = outer ? (outer - 1) * (inner - 1) : 0;
  return (size_t)(4 * (down + (is_short ? t->n : 0)));
}

static void fill_vectors(nyx_fft_passes *t, bool is_short, int type, char *at) {
  const int64_t outer = outer_of(t->n), inner = outer ? t->n / outer : 1;
  const int lanes = nyx__cpu_kernels()->fft->lanes[type];
  if (is_short) t->turn = at;
  for (int back = 0; is_short && back < 2; back++)
    for (int64_t k = 0; k < t->n; k++)
      at = put_vectors(0, k, t->n * lanes / 2, type, back, at);
  for (int back = 0; outer && back < 2; back++) {
    t->down[back] = at;
    for (int64_t j = 1; j < inner; j++)
      for (int64_t k = 1; k < outer; k++)
        at = put_vectors(k * j, 0, t->n, type, back, at);
  }
}

int nyx__fft_columns(int64_t n, int type) {
  const int lanes = nyx__cpu_kernels()->fft->lanes[type];
  if (n % lanes == 0 && n / lanes >= lanes) return lanes;
  if (lanes > 8 && n % 8 == 0 && n / 8 >= lanes) return 8;
  return lanes > 4 && n % 4 == 0 && n / 4 >= lanes ? 4 : 1;
}

static nyx__fft_plan *make(int64_t n, int columns, int type) {
  nyx__fft_plan *p = nyx_memory_alloc(sizeof *p);
  if (!p) return NULL;
  *p = (nyx__fft_plan){0};
  atomic_init(&p->refs, 1);
  p->n = n;
  p->type = type;
  p->passes.columns = columns;
  if (columns == 0) return p;
  const bool is_short = columns == NYX_FFT_SHORT;
  const int lanes = nyx__cpu_kernels()->fft->lanes[type];
  p->passes.n = is_short ? n * 2 / lanes : n / columns;
  if (!is_short) divide(p->passes.n, &p->passes);
  const size_t part = type ? sizeof(double) : sizeof(float);
  size_t bytes = is_short ? 0 : numbers_of(&p->passes) * 2 * part;
  bytes = (bytes + 63) / 64 * 64;
  const size_t vectors =
      columns == 1 || is_short ? vectors_of(&p->passes, is_short) * (size_t)lanes : 0;
  p->block = nyx_memory_alloc(bytes + vectors * part + 1);
  if (!p->block) {
    nyx_memory_free(p);
    return NULL;
  }
  p->passes.turn = p->block;
  if (!is_short) fill(&p->passes, type, p->block);
  if (vectors) fill_vectors(&p->passes, is_short, type, (char *)p->block + bytes);
  return p;
}

void nyx__fft_plan_release(nyx__fft_plan *p) {
  if (!p || atomic_fetch_sub(&p->refs, 1) > 1) return;
  nyx_memory_free(p->block);
  nyx_memory_free(atomic_load(&p->roots));
  nyx_memory_free(atomic_load(&p->factors));
  nyx_memory_free(atomic_load(&p->filter));
  nyx_memory_free(p);
}

void *nyx__fft_keep(_Atomic(void *) *at, void *block) {
  void *none = NULL;
  if (!block || atomic_compare_exchange_strong(at, &none, block)) return block;
  nyx_memory_free(block);
  return none;
}

const void *nyx__fft_roots(nyx__fft_plan *p) {
  void *roots = atomic_load(&p->roots);
  size_t item = 2 * (p->type ? sizeof(double) : sizeof(float));
  if (roots) return roots;
  if (!(roots = nyx_memory_alloc((size_t)(p->n / 2 + 1) * item))) return NULL;
  for (int64_t k = 0; k <= p->n / 2; k++)
    nyx__fft_root(k, p->n, p->type, (char *)roots + (size_t)k * item);
  return nyx__fft_keep(&p->roots, roots);
}

const void *nyx__fft_factors(nyx__fft_plan *p, int64_t rows, int lanes) {
  char *block = atomic_load(&p->factors), *at;
  size_t part = p->type ? sizeof(double) : sizeof(float);
  int64_t cols = p->n / rows, groups = (cols + lanes - 1) / lanes;
  if (block) return block;
  if (!(block = at = nyx_memory_alloc((size_t)(rows * (lanes + groups)) * 2 * part)))
    return NULL;
  for (int64_t k = 0; k < rows; k++, at += (size_t)lanes * 2 * part) {
    for (int l = 0; l < lanes; l++) {
      double root[2];
      nyx__fft_root(k * l, p->n, p->type, root);
      memcpy(at + (size_t)l * part, root, part);
      memcpy(at + (size_t)(lanes + l) * part, (char *)root + part, part);
    }
  }
  for (int64_t g = 0; g < groups; g++)
    for (int64_t k = 0; k < rows; k++, at += 2 * part)
      nyx__fft_root(k * g * lanes, p->n, p->type, at);
  return nyx__fft_keep(&p->factors, block);
}

/* The plans of late, the latest first. */
static nyx__fft_plan *kept[KEPT];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static nyx__fft_plan *find(int64_t n, int columns, int type) {
  for (int i = 0; i < KEPT && kept[i]; i++) {
    nyx__fft_plan *p = kept[i];
    if (p->n != n || p->passes.columns != columns || p->type != type) continue;
    for (; i > 0; i--) kept[i] = kept[i - 1];
    kept[0] = p;
    atomic_fetch_add(&p->refs, 1);
    return p;
  }
  return NULL;
}

void nyx__fft_trim(void) {
  nyx__fft_plan *dropped[KEPT];
  pthread_mutex_lock(&lock);
  memcpy(dropped, kept, sizeof kept);
  memset(kept, 0, sizeof kept);
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < KEPT; i++) nyx__fft_plan_release(dropped[i]);
}

nyx__fft_plan *nyx__fft_plan_get(int64_t n, int columns, int type) {
  pthread_mutex_lock(&lock);
  nyx__fft_plan *p = find(n, columns, type), *oldest = NULL;
  if (!p && (p = make(n, columns, type))) {
    oldest = kept[KEPT - 1];
    for (int i = KEPT - 1; i > 0; i--) kept[i] = kept[i - 1];
    kept[0] = p;
    atomic_fetch_add(&p->refs, 1);
  }
  pthread_mutex_unlock(&lock);
  nyx__fft_plan_release(oldest);
  return p;
}
