/* What the rest of the core may ask the thread pool. Read next: nyx/parallel.h. */
#ifndef NYX_BASE_PARALLEL_H
#define NYX_BASE_PARALLEL_H

#include <nyx/parallel.h>

/* Whether this thread runs a range: calls from here are not split. */
bool nyx__parallel_inside(void);
/* How many calls of this thread found the pool taken by another thread, so far. */
unsigned nyx__parallel_refusals(void);

/* nyx_parallel_for over what lies in memory in the order of its items: every other call
 * takes each thread's ranges from the last to the first, and so begins where the one
 * before ended. For work that a call's order means nothing to. */
void nyx__parallel_sweep(int64_t n, int64_t grain, nyx_range_fn fn, void *arg);

#endif
