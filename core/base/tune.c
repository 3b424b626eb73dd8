/* Measured choices: a table from keys to ways, filled from the file and by measuring. It
 * is read without a lock: entries are never freed, and their way is one atomic number.
 * Read next: tune.h, tune_file.c. */
#include "tune.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "parallel.h"

/* A way is taken in place of the rule's when it needs this part of its time or less. */
#define GAIN 0.95
/* A measurement: seconds of a sample (short calls are repeated), of all of it for short
 * and for long calls, rounds; ways that are so much slower are out after one run. */
#define SAMPLE 1e-4
#define SHORT_TOTAL 0.03
#define LONG_TOTAL 0.3
#define SHORT_ROUNDS 7
#define LONG_ROUNDS 3
#define HOPELESS 2.0
#define LONGEST 2.0 /* calls beyond are not measured */
#define PAUSE 1.0   /* seconds, after other threads have spoilt a measurement */

#define BUCKETS 1024

enum { UNRESOLVED = -1, FORGOTTEN = -2 };

typedef struct entry {
  struct entry *next, *older; /* in its bucket, of all; neither changes */
  uint64_t hash;
  atomic_int way;            /* by number of its choice, once a call has asked */
  const nyx__choice *choice; /* NULL until then; as `line`, changes under the lock */
  nyx__tune_line line;
  bool measured; /* here, not read */
} entry;

static struct {
  pthread_mutex_t lock, measuring;
  _Atomic(entry *) bucket[BUCKETS];
  entry *newest;
  int64_t entries, live;
  atomic_int mode;              /* nyx_tune_mode */
  bool started, loaded, usable; /* usable: the file may be written */
  char file[1024], problem[512];
  atomic_llong measured, changed, refused;
  double rest_until; /* under `measuring` */
} tune = {.lock = PTHREAD_MUTEX_INITIALIZER, .measuring = PTHREAD_MUTEX_INITIALIZER};

atomic_int nyx__tune_on = -1;

int64_t nyx__tune_class(int64_t size) {
  if (size < 8) return size;
  int low = 61 - __builtin_clzll((unsigned long long)size); /* bits below the third */
  return size >> low << low;
}

static double monotonic(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
double (*nyx__tune_clock)(void) = monotonic;

/* The table */

static uint64_t hash_of(const char *name, const int64_t *at, int n) {
  uint64_t hash = 14695981039346656037u; /* FNV-1a over whole numbers, then stirred */
  for (const char *c = name; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
  for (int i = 0; i < n; i++) hash = (hash ^ (uint64_t)at[i]) * 1099511628211u;
  return hash ^ hash >> 29;
}

static entry *find(const char *name, const int64_t *at, int n, uint64_t hash) {
  entry *e = atomic_load_explicit(&tune.bucket[hash % BUCKETS], memory_order_acquire);
  for (; e; e = e->next) {
    if (e->hash == hash && e->line.n == n && strcmp(e->line.name, name) == 0 &&
        memcmp(e->line.at, at, (size_t)n * sizeof *at) == 0)
      return e;
  }
  return NULL;
}

static bool is_live(const entry *e) {
  return atomic_load_explicit(&e->way, memory_order_relaxed) != FORGOTTEN;
}

/* Adds or replaces a line; NULL where there is no memory or no room. Under the lock. */
static entry *put(const nyx__tune_line *line, const nyx__choice *choice, int way) {
  uint64_t hash = hash_of(line->name, line->at, line->n);
  entry *e = find(line->name, line->at, line->n, hash);
  if (e) {
    tune.live += !is_live(e);
    e->line.seconds = line->seconds, e->line.rule_seconds = line->rule_seconds;
    memcpy(e->line.way, line->way, sizeof line->way);
    memcpy(e->line.rule, line->rule, sizeof line->rule);
    e->choice = choice;
    e->measured = choice != NULL;
    atomic_store_explicit(&e->way, way, memory_order_release);
    return e;
  }
  if (tune.entries >= NYX__TUNE_LINES) return NULL;
  if (!(e = nyx_memory_alloc_zeroed(sizeof *e))) return NULL;
  e->line = *line;
  e->hash = hash;
  e->choice = choice;
  e->measured = choice != NULL;
  atomic_init(&e->way, way);
  e->older = tune.newest;
  e->next = atomic_load(&tune.bucket[hash % BUCKETS]);
  tune.newest = e;
  tune.entries++, tune.live++;
  atomic_store_explicit(&tune.bucket[hash % BUCKETS], e, memory_order_release);
  return e;
}

static void take_line(const nyx__tune_line *line) {
  uint64_t hash = hash_of(line->name, line->at, line->n);
  entry *e = find(line->name, line->at, line->n, hash);
  if (!e || !is_live(e)) put(line, NULL, UNRESOLVED);
}

static void forget_all(void) {
  for (entry *e = tune.newest; e; e = e->older) atomic_store(&e->way, FORGOTTEN);
  tune.live = 0;
}

/* Settings; all under the lock */

static void load(void) {
  if (tune.loaded) return;
  tune.loaded = true;
  tune.problem[0] = '\0';
  if (!tune.file[0] && !nyx__tune_file_name(tune.file, sizeof tune.file)) {
    tune.file[0] = '\0';
    tune.usable = false;
    return;
  }
  tune.usable = nyx__tune_file_read(tune.file, tune.problem, sizeof tune.problem,
                                    take_line) != NYX__TUNE_REFUSED;
}

static void set_mode(nyx_tune_mode mode) {
  if (mode != NYX_TUNE_OFF) load();
  atomic_store(&tune.mode, (int)mode);
  bool on = mode == NYX_TUNE_MEASURE || (mode == NYX_TUNE_USE && tune.live > 0);
  atomic_store_explicit(&nyx__tune_on, on, memory_order_release);
}

/* In a forked child nobody else holds a lock. */
static void unlock_after_fork(void) {
  static const pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  tune.lock = tune.measuring = mutex;
}

/* As the environment says. */
static void start(void) {
  if (tune.started) return;
  tune.started = true;
  pthread_atfork(NULL, NULL, unlock_after_fork);
  const char *text = getenv("NYX_TUNE");
  nyx_tune_mode mode = NYX_TUNE_USE;
  if (text && strcmp(text, "0") == 0) {
    mode = NYX_TUNE_OFF;
  } else if (text && text[0]) {
    mode = NYX_TUNE_MEASURE;
    if (strcmp(text, "1") != 0 && strlen(text) < sizeof tune.file)
      strcpy(tune.file, text);
  }
  set_mode(mode);
}

bool nyx__tune_start(void) {
  pthread_mutex_lock(&tune.lock);
  start();
  pthread_mutex_unlock(&tune.lock);
  return atomic_load(&nyx__tune_on) > 0;
}

nyx_status nyx_tune_set(nyx_context *ctx, nyx_tune_mode mode, const char *file) {
  if (file && strlen(file) >= sizeof tune.file - 100) /* room for the names beside it */
    return nyx__error(ctx, TUNE_NAME, (int)sizeof tune.file - 100);
  char problem[sizeof tune.problem] = "";
  pthread_mutex_lock(&tune.lock);
  start();
  if (file) {
    forget_all();
    strcpy(tune.file, file);
    tune.loaded = false;
  }
  set_mode(mode);
  if (mode != NYX_TUNE_OFF && !tune.usable) strcpy(problem, tune.problem);
  pthread_mutex_unlock(&tune.lock);
  return problem[0] ? nyx__error(ctx, TUNE_FILE, problem) : NYX_OK;
}

void nyx_tune_get(nyx_tune_info *out) {
  pthread_mutex_lock(&tune.lock);
  start();
  *out = (nyx_tune_info){.mode = (nyx_tune_mode)atomic_load(&tune.mode),
                         .known = tune.live,
                         .measured = atomic_load(&tune.measured),
                         .changed = atomic_load(&tune.changed),
                         .refused = atomic_load(&tune.refused)};
  strcpy(out->file, tune.file);
  strcpy(out->problem, tune.problem);
  pthread_mutex_unlock(&tune.lock);
}

void nyx_tune_problem(char *out, size_t room) {
  pthread_mutex_lock(&tune.lock);
  snprintf(out, room, "%s", tune.problem);
  pthread_mutex_unlock(&tune.lock);
}

static void describe(const entry *e, nyx_tune_row *out) {
  const nyx__tune_line *line = &e->line;
  size_t used = 0;
  for (int i = 0; i < line->n && used < sizeof out->size; i++) {
    const char *name = i == 0 ? "threads" : e->choice ? e->choice->sizes[i - 1] : "";
    char value[24];
    snprintf(value, sizeof value, "%lld", (long long)line->at[i]);
    bool dtype = strcmp(name, "dtype") == 0 && line->at[i] < NYX_DTYPE_COUNT;
    int n = snprintf(out->size + used, sizeof out->size - used, "%s%s%s%s", i ? ", " : "",
                     dtype ? "" : name, name[0] && !dtype ? " " : "",
                     dtype ? nyx_dtype_name((nyx_dtype)line->at[i]) : value);
    used += n > 0 ? (size_t)n : 0;
  }
}

bool nyx_tune_at(int64_t i, nyx_tune_row *out) {
  pthread_mutex_lock(&tune.lock);
  start();
  entry *e = tune.newest;
  for (; e; e = e->older)
    if (is_live(e) && i-- == 0) break;
  if (e) {
    *out = (nyx_tune_row){.seconds = e->line.seconds,
                          .rule_seconds = e->line.rule_seconds,
                          .measured = e->measured};
    memcpy(out->choice, e->line.name, sizeof out->choice);
    memcpy(out->way, e->line.way, sizeof out->way);
    memcpy(out->rule, e->line.rule, sizeof out->rule);
    describe(e, out);
  }
  pthread_mutex_unlock(&tune.lock);
  return e != NULL;
}

static bool line_at(int64_t i, nyx__tune_line *line) {
  entry *e = tune.newest;
  for (; e; e = e->older)
    if (is_live(e) && i-- == 0) break;
  if (e) *line = e->line;
  return e != NULL;
}

/* Adds what other processes have written meanwhile, and writes all. */
static void save(void) {
  if (!tune.usable) return;
  int lock = nyx__tune_file_lock(tune.file);
  tune.usable =
      nyx__tune_file_read(tune.file, tune.problem, sizeof tune.problem, take_line) !=
          NYX__TUNE_REFUSED &&
      nyx__tune_file_write(tune.file, tune.problem, sizeof tune.problem, line_at);
  nyx__tune_file_unlock(lock);
}

/* Measuring */

typedef struct trial {
  const nyx__tune_key *key;
  nyx__tune_run run;
  void *arg, *result;
  bool long_call; /* too long to be measured */
  uint32_t ways;  /* bit i: way i is still in */
  double best[NYX__TUNE_WAYS];
  int64_t repeats[NYX__TUNE_WAYS];
  unsigned refusals; /* before */
  bool spoilt;
} trial;

/* Seconds of a run of `way`, at the best so far. Ways that fail are out. */
static nyx_status sample(trial *t, int way, int64_t repeats) {
  double start_time = nyx__tune_clock();
  for (int64_t i = 0; i < repeats; i++) {
    nyx_status status = t->run(t->arg, way, t->result);
    if (status == NYX_OK) continue;
    t->ways &= ~(1u << way);
    return status == NYX_ERR_INTERRUPTED ? status : NYX_OK;
  }
  double seconds = (nyx__tune_clock() - start_time) / (double)repeats;
  if (seconds < t->best[way]) t->best[way] = seconds;
  t->spoilt = nyx__parallel_refusals() != t->refusals;
  return NYX_OK;
}

static bool in(const trial *t, int way) {
  return t->ways >> way & 1;
}

static int fastest(const trial *t) {
  int best = t->key->rule;
  for (int way = 0; way < t->key->choice->n_ways; way++)
    if (in(t, way) && t->best[way] < t->best[best]) best = way;
  return best;
}

/* A run of each, so that memory and caches are warm, and what it says about the rest. */
static nyx_status begin(trial *t) {
  int n = t->key->choice->n_ways;
  NYX_TRY(sample(t, t->key->rule, 1));
  t->long_call = in(t, t->key->rule) && t->best[t->key->rule] > LONGEST;
  if (t->long_call) t->ways = 1u << t->key->rule;
  for (int way = 0; way < n; way++) t->best[way] = 1e9;
  for (int way = 0; way < n && !t->spoilt; way++)
    if (in(t, way)) NYX_TRY(sample(t, way, 1));
  double least = t->best[fastest(t)];
  for (int way = 0; way < n; way++) {
    if (way != t->key->rule && t->best[way] > HOPELESS * least) t->ways &= ~(1u << way);
    t->repeats[way] = t->best[way] < SAMPLE ? (int64_t)(SAMPLE / t->best[way]) + 1 : 1;
  }
  return NYX_OK;
}

/* In turns, as other work on the machine comes and goes. */
static nyx_status compare(trial *t) {
  int n = t->key->choice->n_ways;
  double start_time = nyx__tune_clock();
  for (int round = 0; !t->spoilt && !t->long_call && in(t, t->key->rule); round++) {
    double spent = nyx__tune_clock() - start_time;
    if (round >= SHORT_ROUNDS && spent > SHORT_TOTAL) break;
    if (round >= LONG_ROUNDS && spent > LONG_TOTAL) break;
    for (int i = 0; i < n && !t->spoilt; i++) {
      int way = (i + round) % n;
      if (in(t, way)) NYX_TRY(sample(t, way, t->repeats[way]));
    }
  }
  return NYX_OK;
}

/* The fastest, if it gains enough. */
static int winner(const trial *t) {
  int best = fastest(t);
  return t->best[best] > GAIN * t->best[t->key->rule] ? t->key->rule : best;
}

static void keep(const trial *t, nyx__tune_line *line, int way) {
  const nyx__choice *choice = t->key->choice;
  line->seconds = t->best[way];
  line->rule_seconds = t->best[t->key->rule];
  snprintf(line->name, sizeof line->name, "%s", choice->name);
  snprintf(line->way, sizeof line->way, "%s", choice->ways[way]);
  snprintf(line->rule, sizeof line->rule, "%s", choice->ways[t->key->rule]);
  pthread_mutex_lock(&tune.lock);
  if (put(line, choice, way)) save();
  pthread_mutex_unlock(&tune.lock);
  atomic_fetch_add(&tune.measured, 1);
}

/* By the thread that holds `measuring`. */
static nyx_status measure(trial *t, nyx__tune_line *line, int *way) {
  for (int i = 0; i < NYX__TUNE_WAYS; i++) t->best[i] = 1e9;
  NYX_TRY(begin(t));
  NYX_TRY(compare(t));
  int rule = t->key->rule, best = winner(t);
  if (best != rule && !t->spoilt) { /* those two again: other work may have helped */
    t->ways &= 1u << best | 1u << rule;
    t->best[best] = t->best[rule] = 1e9;
    NYX_TRY(compare(t));
    best = in(t, best) ? winner(t) : rule;
  }
  if (t->spoilt) {
    atomic_fetch_add(&tune.refused, 1);
    tune.rest_until = nyx__tune_clock() + PAUSE;
  }
  if (t->spoilt || !in(t, rule)) return NYX_OK;
  keep(t, line, best);
  *way = best;
  return NYX_OK;
}

/* The way of an entry that came from the file, by its name. */
static int resolve(entry *e, const nyx__choice *choice) {
  pthread_mutex_lock(&tune.lock);
  int way = atomic_load(&e->way);
  if (way == UNRESOLVED) {
    way = FORGOTTEN; /* a way that this version does not have */
    for (int i = 0; i < choice->n_ways; i++)
      if (strcmp(choice->ways[i], e->line.way) == 0) way = i;
    tune.live -= way == FORGOTTEN;
    e->choice = choice;
    atomic_store(&e->way, way);
  }
  pthread_mutex_unlock(&tune.lock);
  return way;
}

/* Measures, unless that cannot be done now. */
static nyx_status try_to_measure(trial *t, size_t bytes, nyx__tune_line *line, int *way) {
  if (nyx__parallel_inside() || pthread_mutex_trylock(&tune.measuring) != 0)
    return NYX_OK;
  nyx_status status = NYX_OK;
  if (nyx__tune_clock() >= tune.rest_until && (t->result = nyx_memory_alloc(bytes))) {
    t->refusals = nyx__parallel_refusals();
    status = measure(t, line, way);
    nyx_memory_free(t->result);
  }
  pthread_mutex_unlock(&tune.measuring);
  return status;
}

nyx_status nyx__tune(const nyx__tune_key *key, size_t bytes, nyx__tune_run run, void *arg,
                     int *way) {
  const nyx__choice *choice = key->choice;
  nyx__tune_line line = {.n = choice->n_sizes + 1, .at = {nyx_parallel_threads()}};
  memcpy(line.at + 1, key->size, (size_t)choice->n_sizes * sizeof *key->size);
  *way = key->rule;
  entry *e = find(choice->name, line.at, line.n, hash_of(choice->name, line.at, line.n));
  int known = e ? atomic_load_explicit(&e->way, memory_order_acquire) : FORGOTTEN;
  if (known == UNRESOLVED) known = resolve(e, choice);
  nyx_status status = NYX_OK;
  if (known >= 0) {
    if (key->usable >> known & 1) *way = known;
  } else if (atomic_load(&tune.mode) == NYX_TUNE_MEASURE) {
    trial t = {.key = key, .run = run, .arg = arg, .ways = key->usable};
    status = try_to_measure(&t, bytes, &line, way);
  }
  if (*way != key->rule) atomic_fetch_add(&tune.changed, 1);
  return status;
}
