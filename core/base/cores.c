/* CPUs as Linux lists them: sched_getaffinity(2), cgroups(7), and sysfs as in
 * Documentation/ABI/stable/sysfs-devices-system-cpu and sysfs-devices-node. Read next:
 * cores.h. */
#include "cores.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Control groups */

/* Quota and period of a group as CPUs, 0 for none; -1 when it has no such files. */
static double quota_of(const char *folder, bool second_version) {
  char name[1400];
  double quota = -1, period = -1;
  snprintf(name, sizeof name, "%s/%s", folder,
           second_version ? "cpu.max" : "cpu.cfs_quota_us");
  FILE *in = fopen(name, "r");
  if (!in) return -1;
  int n = fscanf(in, second_version ? "%lf %lf" : "%lf", &quota, &period);
  fclose(in);
  if (second_version) return n == 2 && quota > 0 && period > 0 ? quota / period : 0;
  snprintf(name, sizeof name, "%s/cpu.cfs_period_us", folder);
  if (n != 1 || quota <= 0 || !(in = fopen(name, "r"))) return 0;
  n = fscanf(in, "%lf", &period);
  fclose(in);
  return n == 1 && period > 0 ? quota / period : 0;
}

/* The least quota of the group `path` and of those above it. */
static double least_quota(const char *mount, const char *path, bool second_version) {
  char folder[1280];
  double least = 0;
  snprintf(folder, sizeof folder, "%.600s%.600s", mount, path);
  size_t end = strlen(mount) < 600 ? strlen(mount) : 600;
  for (;;) {
    double quota = quota_of(folder, second_version);
    if (quota > 0 && (least == 0 || quota < least)) least = quota;
    char *slash = strrchr(folder, '/');
    if (!slash || strlen(folder) <= end) return least;
    *slash = '\0'; /* in a container the path may be that outside: up to the mount */
  }
}

/* Whether the names between commas hold "cpu". */
static bool has_cpu(const char *names, size_t length) {
  for (size_t i = 0; i < length;) {
    size_t n = strcspn(names + i, ",:");
    if (n == 3 && strncmp(names + i, "cpu", 3) == 0) return true;
    i += n + 1;
  }
  return false;
}

int nyx__cgroup_cores(const char *membership, const char *root) {
  char line[1024], mount[700];
  double least = 0;
  FILE *in = fopen(membership, "r");
  if (!in) return 0;
  while (fgets(line, sizeof line, in)) { /* "number:controllers:/path" */
    char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
    if (!path) continue;
    size_t length = (size_t)(path - names - 1);
    bool second_version = length == 0;
    if (!second_version && !has_cpu(names + 1, length)) continue;
    path[1 + strcspn(path + 1, "\n")] = '\0';
    snprintf(mount, sizeof mount, "%.600s%s", root, second_version ? "" : "/cpu");
    double quota = least_quota(mount, path + 1, second_version);
    if (quota > 0 && (least == 0 || quota < least)) least = quota;
  }
  fclose(in);
  if (!(least > 0) || least > 1e6) return 0;
  return (int)least + (least > (int)least);
}

/* Affinity */

bool nyx__allowed_cpus(nyx__cpu_set *out) {
  *out = (nyx__cpu_set){{false}};
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return false;
  for (int i = 0; i < NYX__CPUS && i < CPU_SETSIZE; i++) out->has[i] = CPU_ISSET(i, &set);
  return true;
#else
  return false;
#endif
}

int nyx__cores(void) {
  nyx__cpu_set allowed;
  int count = 0;
  if (nyx__allowed_cpus(&allowed))
    for (int i = 0; i < NYX__CPUS; i++) count += allowed.has[i];
  if (count == 0) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    count = n > 0 && n < 1 << 20 ? (int)n : 1;
  }
  int quota = nyx__cgroup_cores("/proc/self/cgroup", "/sys/fs/cgroup");
  return quota > 0 && quota < count ? quota : count;
}

/* Lists */

static const char *read_cpu(const char *p, long *out) {
  if (*p < '0' || *p > '9') return NULL;
  char *end;
  *out = strtol(p, &end, 10);
  return *out >= 0 && *out < NYX__CPUS ? end : NULL;
}

int nyx__cpu_list(const char *text, int *out, int room) {
  int n = 0;
  for (const char *p = text;;) {
    long first, last;
    if (!(p = read_cpu(p, &first))) return -1;
    last = first;
    if (*p == '-' && !(p = read_cpu(p + 1, &last))) return -1;
    if (last < first) return -1;
    for (; first <= last && n < room; first++) out[n++] = (int)first;
    if (first <= last) return -1;
    if (*p == ',') {
      p++;
      continue;
    }
    return p[strspn(p, " \t\n")] == '\0' ? n : -1;
  }
}

void nyx__cpu_list_text(const nyx__cpu_set *set, char *out, size_t room) {
  size_t used = 0;
  out[0] = '\0';
  for (int i = 0; i < NYX__CPUS; i++) {
    if (!set->has[i]) continue;
    int last = i;
    while (last + 1 < NYX__CPUS && set->has[last + 1]) last++;
    int n = last > i
                ? snprintf(out + used, room - used, "%s%d-%d", used ? "," : "", i, last)
                : snprintf(out + used, room - used, "%s%d", used ? "," : "", i);
    used += n > 0 ? (size_t)n : 0;
    if (used >= room) return;
    i = last;
  }
}

/* How CPUs lie */

static bool read_text(const char *name, char *out, size_t room) {
  FILE *in = fopen(name, "r");
  if (!in) return false;
  bool good = fgets(out, (int)room, in) != NULL;
  fclose(in);
  return good;
}

static int read_int(const char *system, int cpu, const char *what) {
  char name[512], text[64];
  snprintf(name, sizeof name, "%.300s/cpu/cpu%d/topology/%s", system, cpu, what);
  return read_text(name, text, sizeof text) ? atoi(text) : 0;
}

int nyx__nodes(const char *system, unsigned long long *mask) {
  char name[512], text[1024];
  int nodes[NYX__CPUS];
  *mask = 1;
  snprintf(name, sizeof name, "%.300s/node/online", system);
  int n = read_text(name, text, sizeof text) ? nyx__cpu_list(text, nodes, NYX__CPUS) : -1;
  if (n < 1) return 1;
  *mask = 0;
  for (int i = 0; i < n; i++)
    if (nodes[i] < 64) *mask |= 1ULL << nodes[i];
  return n;
}

int nyx__node_of(const char *system, int cpu) {
  unsigned long long mask;
  nyx__nodes(system, &mask);
  for (int node = 0; node < 64; node++) {
    char name[512], text[4096];
    int cpus[NYX__CPUS];
    if (!(mask >> node & 1)) continue;
    snprintf(name, sizeof name, "%.300s/node/node%d/cpulist", system, node);
    int n = read_text(name, text, sizeof text) ? nyx__cpu_list(text, cpus, NYX__CPUS) : 0;
    for (int i = 0; i < n; i++)
      if (cpus[i] == cpu) return node;
  }
  return 0;
}

/* A CPU by where it is, and by the how-manieth it is there. */
typedef struct place {
  int node, package, core, cpu;
  int second, turn; /* thread of its core; core of its node */
} place;

static int by_numbers(const int *a, const int *b, int n) {
  for (int i = 0; i < n; i++)
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  return 0;
}

static int nearest_first(const void *left, const void *right) {
  const place *x = left, *y = right;
  return by_numbers((int[]){x->node, x->package, x->core, x->cpu},
                    (int[]){y->node, y->package, y->core, y->cpu}, 4);
}

static int farthest_first(const void *left, const void *right) {
  const place *x = left, *y = right;
  return by_numbers((int[]){x->second, x->turn, x->node, x->cpu},
                    (int[]){y->second, y->turn, y->node, y->cpu}, 4);
}

int nyx__cpu_order(const nyx__cpu_set *allowed, bool spread, const char *system, int *out,
                   int room) {
  place *list = malloc(NYX__CPUS * sizeof *list);
  int n = 0;
  for (int cpu = 0; cpu < NYX__CPUS; cpu++) {
    if (!allowed->has[cpu]) continue;
    if (list) {
      list[n] = (place){.node = nyx__node_of(system, cpu),
                        .package = read_int(system, cpu, "physical_package_id"),
                        .core = read_int(system, cpu, "core_id"),
                        .cpu = cpu};
    } else if (n < room) {
      out[n] = cpu; /* without memory by number */
    }
    n++;
  }
  if (!list) return n < room ? n : room;
  qsort(list, (size_t)n, sizeof *list, nearest_first);
  for (int i = 1; i < n; i++) {
    place *x = &list[i], *before = &list[i - 1];
    bool same_node = x->node == before->node;
    bool same_core =
        same_node && x->package == before->package && x->core == before->core;
    x->second = same_core ? before->second + 1 : 0;
    x->turn = same_core ? before->turn : same_node ? before->turn + 1 : 0;
  }
  if (spread) qsort(list, (size_t)n, sizeof *list, farthest_first);
  for (int i = 0; i < n && i < room; i++) out[i] = list[i].cpu;
  free(list);
  return n < room ? n : room;
}
