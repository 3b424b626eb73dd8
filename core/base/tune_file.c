/* The file of measured choices: text, read strictly, nothing in it is run. Its head says
 * for what machine it is, then each line is a measured size, then their number:
 *
 *   nyx tuning 1
 *   version 0.1.0
 *   cpu AMD EPYC 9B45
 *   kernels avx512
 *   product 2,0,1,1,512,512,512,1,1 packed 812500 blas 901000
 *   end 1
 *
 * with numbers of the key, the way, its nanoseconds, the fixed rule's way and its. A file
 * that is anything else is left as it is. Read next: tune.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <nyx/device.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpu.h"
#include "tune.h"

#define MOST_BYTES ((off_t)1 << 20)
#define MOST_SECONDS 1e5

/* What the file must begin with here. */
static void head_of(char *out, size_t room) {
  const char *brand = nyx__cpu_info()->brand;
  snprintf(out, room, "nyx tuning 1\nversion %s\ncpu %s\nkernels %s\n", nyx_version(),
           brand[0] ? brand : "unknown", nyx_cpu_path());
}

bool nyx__tune_file_name(char *out, size_t room) {
  char head[1024];
  head_of(head, sizeof head);
  uint64_t hash = 14695981039346656037u; /* FNV-1a */
  for (const char *c = head; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  int n = -1;
  if (cache && cache[0] == '/') {
    n = snprintf(out, room, "%s/nyx/tune-%016" PRIx64 ".txt", cache, hash);
  } else if (home && home[0] == '/') {
    n = snprintf(out, room, "%s/.cache/nyx/tune-%016" PRIx64 ".txt", home, hash);
  }
  return n > 0 && (size_t)n < room;
}

/* Reading */

static bool is_name(const char *text, size_t length) {
  static const char known[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
  return length > 0 && length < 24 && strspn(text, known) >= length;
}

/* A name and the blank after it. */
static const char *read_name(const char *p, char out[24]) {
  size_t length = strcspn(p, " \n");
  if (p[length] != ' ' || !is_name(p, length)) return NULL;
  memcpy(out, p, length);
  out[length] = '\0';
  return p + length + 1;
}

/* Digits only, no sign, at most 18 of them, then one of `ends`; NULL otherwise. */
static const char *read_number(const char *p, const char *ends, int64_t *out) {
  size_t length = strspn(p, "0123456789");
  if (length == 0 || length > 18 || !p[length] || !strchr(ends, p[length])) return NULL;
  *out = strtoll(p, NULL, 10);
  return p + length;
}

static const char *read_seconds(const char *p, char end, double *out) {
  const char ends[] = {end, '\0'};
  int64_t nanoseconds;
  if (!(p = read_number(p, ends, &nanoseconds))) return NULL;
  *out = (double)nanoseconds * 1e-9;
  return *out > 0 && *out < MOST_SECONDS ? p + 1 : NULL;
}

/* The line at p; the one after it, NULL when it is not as it must be. */
static const char *read_line(const char *p, nyx__tune_line *line) {
  if (!(p = read_name(p, line->name))) return NULL;
  line->n = 0;
  do {
    if (line->n > NYX__TUNE_SIZES) return NULL;
    if (!(p = read_number(p, ", ", &line->at[line->n++]))) return NULL;
  } while (*p++ == ',');
  if (!(p = read_name(p, line->way)) || !(p = read_seconds(p, ' ', &line->seconds)) ||
      !(p = read_name(p, line->rule)))
    return NULL;
  return read_seconds(p, '\n', &line->rule_seconds);
}

/* Checks the text, or gives its lines away: the number of the bad line, 0 when all are
 * good. */
static int read_text(const char *text, size_t size,
                     void (*take)(const nyx__tune_line *line)) {
  const char *p = text;
  nyx__tune_line line;
  int at = 5, count = 0; /* after the head's four */
  for (; strncmp(p, "end ", 4) != 0; at++, count++) {
    if (count == NYX__TUNE_LINES || !(p = read_line(p, &line))) return at;
    if (take) take(&line);
  }
  int64_t said;
  if (!(p = read_number(p + 4, "\n", &said)) || said != count) return at;
  return (size_t)(p + 1 - text) == size ? 0 : at;
}

/* The whole of a plain file, ended with '\0'; NULL and the error otherwise. */
static char *read_all(const char *file, size_t *size, const char **why) {
  struct stat about;
  int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  *why = NULL;
  if (fd < 0) {
    if (errno != ENOENT && errno != ENOTDIR) *why = strerror(errno);
    return NULL;
  }
  char *text = NULL;
  ssize_t got = 0;
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
    *why = "it is no plain file";
  } else if (about.st_size > MOST_BYTES) {
    *why = "it has more than 1 MiB";
  } else if (!(text = nyx_memory_alloc((size_t)about.st_size + 1))) {
    *why = "there is no memory to read it";
  } else {
    size_t wanted = (size_t)about.st_size;
    for (*size = 0; *size < wanted; *size += (size_t)got)
      if ((got = read(fd, text + *size, wanted - *size)) <= 0) break;
    text[*size] = '\0';
  }
  close(fd);
  return text;
}

nyx__tune_read nyx__tune_file_read(const char *file, char *problem, size_t room,
                                   void (*take)(const nyx__tune_line *line)) {
  size_t size = 0;
  const char *why;
  char *text = read_all(file, &size, &why), head[1024];
  if (!text && !why) return NYX__TUNE_ABSENT;
  int bad = 0;
  if (text && size > 0) { /* of no bytes: what a crash of the system leaves */
    head_of(head, sizeof head);
    size_t length = strlen(head);
    if (strncmp(text, "nyx tuning 1\n", 13) != 0 || strlen(text) != size) {
      why = "it is no tuning file of Nyx";
    } else if (strncmp(text, head, length) != 0) {
      why = "it was measured by another version, CPU or path";
    } else if ((bad = read_text(text + length, size - length, NULL)) == 0) {
      read_text(text + length, size - length, take);
    }
  }
  nyx_memory_free(text);
  if (bad) {
    snprintf(problem, room, "%.700s: line %d is not as it was written; remove the file",
             file, bad);
  } else if (why) {
    snprintf(problem, room, "%.700s: %s; remove it or name another", file, why);
  }
  return bad || why ? NYX__TUNE_REFUSED : NYX__TUNE_READ;
}

/* Writing */

static void make_folders(const char *file) {
  char folder[1024];
  snprintf(folder, sizeof folder, "%s", file);
  for (char *p = folder + 1; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    (void)mkdir(folder, 0700);
    *p = '/';
  }
}

static bool write_lines(FILE *out, bool (*next)(int64_t i, nyx__tune_line *line)) {
  char head[1024];
  nyx__tune_line line;
  int64_t count = 0;
  head_of(head, sizeof head);
  bool good = fputs(head, out) >= 0;
  for (; good && count < NYX__TUNE_LINES && next(count, &line); count++) {
    fprintf(out, "%s ", line.name);
    for (int k = 0; k < line.n; k++) fprintf(out, "%s%" PRId64, k ? "," : "", line.at[k]);
    good = fprintf(out, " %s %.0f %s %.0f\n", line.way, line.seconds * 1e9, line.rule,
                   line.rule_seconds * 1e9) > 0;
  }
  return good && fprintf(out, "end %" PRId64 "\n", count) > 0;
}

bool nyx__tune_file_write(const char *file, char *problem, size_t room,
                          bool (*next)(int64_t i, nyx__tune_line *line)) {
  char fresh[PATH_MAX + 32], real[PATH_MAX];
  make_folders(file);
  if (realpath(file, real)) file = real; /* a link stays one */
  snprintf(fresh, sizeof fresh, "%s.%ld.new", file, (long)getpid());
  (void)unlink(fresh); /* left by a process of this number */
  int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
  bool good = out != NULL;
  if (good) good = write_lines(out, next);
  if (out && fclose(out) != 0) good = false;
  if (!out && fd >= 0) close(fd);
  if (good) good = rename(fresh, file) == 0;
  if (!good) {
    snprintf(problem, room,
             "%.700s: cannot be written: %s; what is measured is lost at the end", file,
             strerror(errno));
    if (fd >= 0) (void)unlink(fresh);
  }
  return good;
}

int nyx__tune_file_lock(const char *file) {
  char folder[1024];
  snprintf(folder, sizeof folder, "%s", file);
  char *slash = strrchr(folder, '/');
  if (slash) slash[slash == folder] = '\0';
  make_folders(file);
  int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; fd >= 0 && i < 50; i++) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
    usleep(2000);
  }
  if (fd >= 0) close(fd);
  return -1;
}

void nyx__tune_file_unlock(int lock) {
  if (lock >= 0) close(lock);
}
