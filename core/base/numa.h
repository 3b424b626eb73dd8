/* On which memory node mapped blocks lie. Read next: numa.c, memory.c. */
#ifndef NYX_BASE_NUMA_H
#define NYX_BASE_NUMA_H

#include <stddef.h>

/* Tells the system where the pages of a block that was just mapped shall be; a refusal
 * leaves them where they are touched first. */
void nyx__numa_place(void *pages, size_t bytes);

#endif
