/* Which CPUs there are for this process: by affinity, by the cgroup's quota, and how they
 * lie to one another. Linux; elsewhere the number of cores and no more. Read next:
 * cores.c, parallel.c. */
#ifndef NYX_BASE_CORES_H
#define NYX_BASE_CORES_H

#include <stdbool.h>
#include <stddef.h>

#define NYX__CPUS 1024
#define NYX__SYSTEM "/sys/devices/system"

/* Logical CPUs by number. */
typedef struct nyx__cpu_set {
  bool has[NYX__CPUS];
} nyx__cpu_set;

/* How many threads are of use here; at least 1. */
int nyx__cores(void);

/* The CPUs that the quota of a control group is worth, rounded up; 0: there is none.
 * `membership` is /proc/self/cgroup, `root` /sys/fs/cgroup, except in tests. */
int nyx__cgroup_cores(const char *membership, const char *root);

/* The CPUs that this thread may run on; false where the system does not say. */
bool nyx__allowed_cpus(nyx__cpu_set *out);

/* Reads "0-3,8" (blanks and a newline may follow): the CPUs in that order, at most `room`
 * of them; how many, or -1 when it is no such list. */
int nyx__cpu_list(const char *text, int *out, int room);
/* Writes such a list. */
void nyx__cpu_list_text(const nyx__cpu_set *set, char *out, size_t room);

/* The allowed CPUs in the order in which threads take them: compact goes from one to its
 * nearest neighbour, spread to the farthest, so that cores come before their second
 * threads and nodes take turns. `system` is /sys/devices/system, except in tests. */
int nyx__cpu_order(const nyx__cpu_set *allowed, bool spread, const char *system, int *out,
                   int room);

/* Memory nodes that have CPUs or memory: their number, at least 1; `mask` bit i: node i
 * is there, for nodes below 64. */
int nyx__nodes(const char *system, unsigned long long *mask);
/* The node of a CPU, 0 where that is not known. */
int nyx__node_of(const char *system, int cpu);

#endif
