/* Measured choices, inside: where an op has several ways, it describes them by a
 * nyx__choice and asks nyx__tune which to go. Read next: nyx/tune.h, tune.c;
 * core/linalg/gemm_ways.c for an example. */
#ifndef NYX_BASE_TUNE_H
#define NYX_BASE_TUNE_H

#include <nyx/tune.h>
#include <stdatomic.h>

#include "context.h"

#define NYX__TUNE_WAYS 16
#define NYX__TUNE_SIZES 16

typedef struct nyx__choice {
  const char *name;         /* all names: letters, digits and '_', at most 23 */
  const char *const *ways;  /* by number; at most NYX__TUNE_WAYS */
  const char *const *sizes; /* what the numbers of a key are called */
  int n_ways, n_sizes;
} nyx__choice;

/* A call as far as it matters to the choice. */
typedef struct nyx__tune_key {
  const nyx__choice *choice;
  int64_t size[NYX__TUNE_SIZES];
  uint32_t usable; /* bit i: way i can compute this call */
  int rule;        /* the way of the fixed rule, usable */
} nyx__tune_key;

/* Sizes that are measured together: 1, 2, ... 8, 10, 12, 14, 16, 20, ... */
int64_t nyx__tune_class(int64_t size);

/* Seconds, for measuring; tests put a clock of their own in its place. */
extern double (*nyx__tune_clock)(void);

/* 0: no call goes another way than the rule's. Looked at before a key is made. */
extern atomic_int nyx__tune_on;
bool nyx__tune_start(void);
static inline bool nyx__tuned(void) {
  int on = atomic_load_explicit(&nyx__tune_on, memory_order_acquire);
  return on > 0 || (on < 0 && nyx__tune_start());
}

/* Computes the call by a way into `result`, not where the call itself wants it. */
typedef nyx_status (*nyx__tune_run)(void *arg, int way, void *result);

/* The way to go. When this key is to be measured, calls run several times for each usable
 * way, with a block of so many bytes for results, which are thrown away. A way that fails
 * is not taken; fails only when interrupted. */
nyx_status nyx__tune(const nyx__tune_key *key, size_t bytes, nyx__tune_run run, void *arg,
                     int *way) NYX_MUST_CHECK;

/* ---- between tune.c and tune_file.c */

/* A measured size as the file has it. */
typedef struct nyx__tune_line {
  char name[24], way[24], rule[24];
  int n;
  int64_t at[NYX__TUNE_SIZES + 1]; /* threads, then the sizes */
  double seconds, rule_seconds;
} nyx__tune_line;

#define NYX__TUNE_LINES 4096 /* more sizes are not measured, more lines are not read */

typedef enum nyx__tune_read {
  NYX__TUNE_READ,
  NYX__TUNE_ABSENT,
  NYX__TUNE_REFUSED /* why is in `problem` */
} nyx__tune_read;

/* Gives every line to `take`, after all of them were found to be good. */
nyx__tune_read nyx__tune_file_read(const char *file, char *problem, size_t room,
                                   void (*take)(const nyx__tune_line *line));
/* Writes what `next` gives for 0, 1, ... until it says false; beside the file, then
 * renamed. False: why is in `problem`. */
bool nyx__tune_file_write(const char *file, char *problem, size_t room,
                          bool (*next)(int64_t i, nyx__tune_line *line));
/* One process at a time reads, merges and writes: a lock of the folder, or -1 when it
 * cannot be had soon, which may lose what the other adds and nothing else. */
int nyx__tune_file_lock(const char *file);
void nyx__tune_file_unlock(int lock);
/* The default file's name; false when there is no place for it. */
bool nyx__tune_file_name(char *out, size_t room);

#endif
