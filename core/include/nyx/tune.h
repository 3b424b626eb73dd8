/* Choices that are measured. Some ops have several ways to compute the same thing, and a
 * fixed rule by size says which; where the rule was made on another CPU, measuring finds
 * a faster one. What was measured is kept in a file, for each CPU, path and number of
 * threads. Ways may round differently, all within the stated accuracy of the op: with
 * NYX_TUNE_OFF results are those of the fixed rules, the same bits every time. */
#ifndef NYX_TUNE_H
#define NYX_TUNE_H

#include "status.h"

typedef enum nyx_tune_mode {
  NYX_TUNE_OFF,    /* the fixed rules; the file is not read */
  NYX_TUNE_USE,    /* what the file says, else the fixed rules */
  NYX_TUNE_MEASURE /* and what it does not say is measured when it is met, and added */
} nyx_tune_mode;

typedef struct nyx_tune_info {
  nyx_tune_mode mode;
  char file[1024];   /* "" when there is no place for one */
  char problem[512]; /* why the file is not read or not written; "" */
  int64_t known;     /* sizes known, of this and earlier processes */
  int64_t measured;  /* by this process */
  int64_t changed;   /* calls that went another way than the fixed rule's */
  int64_t refused;   /* measurements thrown away, as other threads used the pool */
} nyx_tune_info;

/* One measured size, for reports. */
typedef struct nyx_tune_row {
  char choice[24];        /* "product" */
  char way[24], rule[24]; /* the way taken, the fixed rule's */
  double seconds, rule_seconds;
  bool measured;  /* by this process */
  char size[256]; /* "threads 2, dtype float32, rows 512, ..." */
} nyx_tune_row;

/* The default is NYX_TUNE_USE and a file in $XDG_CACHE_HOME/nyx (~/.cache/nyx). NYX_TUNE
 * in the environment says otherwise: 0 is off, 1 measures, anything else is the name of
 * the file, and measures. These settings are the process's. file: NULL keeps the one in
 * use, "" goes back to the default, a name reads that one; what is known from another
 * file is forgotten. Fails with NYX_ERR_ARGUMENT where the name is too long, and with
 * NYX_ERR_IO where an existing file cannot be used, which is then neither read nor
 * written; the mode is set all the same. ctx receives the message. */
NYX_API NYX_MUST_CHECK nyx_status nyx_tune_set(nyx_context *ctx, nyx_tune_mode mode,
                                               const char *file);
NYX_API void nyx_tune_get(nyx_tune_info *out);
/* The problem alone, of a file that an op has wanted so far; reads none itself. */
NYX_API void nyx_tune_problem(char *out, size_t room);
/* The sizes known, in no order, i from 0; false when there are no more. */
NYX_API bool nyx_tune_at(int64_t i, nyx_tune_row *out);

#endif
