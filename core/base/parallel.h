/* What the rest of the core may ask the thread pool. Read next: nyx/parallel.h. */
#ifndef NYX_BASE_PARALLEL_H
#define NYX_BASE_PARALLEL_H

#include <nyx/parallel.h>

/* Whether this thread runs a range: calls from here are not split. */
bool nyx__parallel_inside(void);
/* How many calls of this thread found the pool taken by another thread, so far. */
unsigned nyx__parallel_refusals(void);

#endif
