/* What the files of elementwise work on the CPU share: the plan of one computation. Read
 * next: elementwise.c (makes it), elementwise_run.c (carries it out). */
#ifndef NYX_DEVICE_CPU_ELEMENTWISE_PLAN_H
#define NYX_DEVICE_CPU_ELEMENTWISE_PLAN_H

#include <nyx/parallel.h>

#include "../../../kernels/cpu/elementwise.h"
#include "../../../kernels/cpu/move.h"
#include "cpu.h"

#define MAX_IN 5
#define TILE_MOST                                                                        \
  16384 /* bytes of a buffer: four lines of each row or column of a tile */

/* A tensor as the loops see it. Strides are in elements; inputs' may be negative. */
typedef struct operand {
  char *data;
  int64_t item; /* bytes of an element */
  bool ready;   /* elements are of the type the kernel takes or gives */
  bool linear;  /* and lie in order: element i is at data + i * item */
  bool repeats; /* blocks that start at the same address hold the same elements */
  nyx_gather_fn
      gather; /* NULL: elements are ready and only have to be brought together */
  int64_t stride[NYX_MAX_DIMS];
} operand;

/* How the elements are cut into blocks. */
typedef enum cut {
  CUT_ROW,  /* pieces of a row */
  CUT_ROWS, /* whole rows, several at a time */
  CUT_TILES /* pieces of several rows: an operand's memory runs across the rows */
} cut;

typedef struct plan {
  nyx_elementwise_fn fn;
  nyx_elementwise_fn past; /* computes the same past the caches, or NULL */
  const double *attr;
  nyx_dtype compute;
  int64_t item;        /* bytes of the compute type */
  int64_t result_item; /* bytes of what fn writes: the compute type or bool */
  int n_in;            /* inputs the text uses; slot[i] is the place of in[i] for fn */
  int slot[MAX_IN];
  operand in[MAX_IN], out;
  _Alignas(8) char number[MAX_IN][8]; /* in[i], where a number is made another type */
  bool chooses; /* fn chooses elements of any type by the bytes of in[0] */
  bool copies;  /* fn only copies: what was brought together or converted is the result */
  bool streams; /* the result is too large for the caches */
  const nyx_move_kernels *move;
  nyx_gather_fn widen; /* turns fn's bools into the compute type before `scatter` */
  nyx_scatter_fn scatter;
  int ndim; /* at least 1; 2 for tiles */
  int64_t shape[NYX_MAX_DIMS];
  int64_t n;
  cut cut;
  int64_t block;                    /* most elements of a block */
  bool turns;                       /* tiles are copied from across: no buffers */
  int64_t panel;                    /* rows done across before going further down */
  int64_t tile_rows, tile_cols;     /* of a tile that is not at the edge */
  int64_t tiles_down, tiles_across; /* tiles of the last two dimensions */
} plan;

/* Computes what is planned; a thread that takes part does at least `grain_bytes`. */
void nyx__run_plan(plan *p, int64_t grain_bytes, nyx__stop *stop);

#endif
