/* The history file: $NYX_HISTORY, or nyx/history in the user's state folder
 * ($XDG_STATE_HOME, ~/.local/state). One line per entry, appended at once, so that
 * sessions side by side and killed ones lose nothing. Read next: edit.c. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "line.h"

#define KEPT 2000 /* entries loaded; a file with twice as many is cut back */

/* The file's path in `out`; "" when there is no place for it. */
static void find_path(char out[PATH_MAX]) {
  const char *named = getenv("NYX_HISTORY"), *state = getenv("XDG_STATE_HOME");
  const char *home = getenv("HOME");
  int n = 0;
  if (named) {
    n = snprintf(out, PATH_MAX, "%s", named);
  } else if (state && state[0]) {
    n = snprintf(out, PATH_MAX, "%s/nyx/history", state);
  } else if (home && home[0]) {
    n = snprintf(out, PATH_MAX, "%s/.local/state/nyx/history", home);
  }
  if (n <= 0 || n >= PATH_MAX) out[0] = '\0';
}

static void make_folders(const char *path) {
  char folder[PATH_MAX];
  snprintf(folder, sizeof folder, "%s", path);
  for (char *p = folder + 1; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    (void)mkdir(folder, 0700);
    *p = '/';
  }
}

static FILE *open_file(const char *path, int flags, const char *mode) {
  int fd = open(path, flags | O_CLOEXEC, 0600);
  if (fd < 0) return NULL;
  FILE *file = fdopen(fd, mode);
  if (file == NULL) close(fd);
  return file;
}

/* Keeps only the last KEPT entries, which follow at `position`. */
static void cut_back(const char *path, FILE *file, long position) {
  char fresh[PATH_MAX], real[PATH_MAX], block[4096];
  if (realpath(path, real)) path = real; /* a link stays one */
  int n = snprintf(fresh, sizeof fresh, "%s.new", path);
  if (n < 0 || n >= PATH_MAX || fseek(file, position, SEEK_SET) != 0) return;
  FILE *out = open_file(fresh, O_WRONLY | O_CREAT | O_TRUNC, "w");
  if (out == NULL) return;
  bool good = true;
  for (size_t got; (got = fread(block, 1, sizeof block, file)) > 0;)
    good = fwrite(block, 1, got, out) == got && good;
  good = fclose(out) == 0 && good;
  if (!good || rename(fresh, path) != 0) (void)unlink(fresh);
}

void nyx__history_load(void (*add)(const char *line)) {
  char path[PATH_MAX], *line = NULL;
  find_path(path);
  FILE *file = path[0] ? open_file(path, O_RDONLY, "r") : NULL;
  if (file == NULL) return;
  size_t size = 0;
  long total = 0;
  while (getline(&line, &size, file) > 0) total++;
  rewind(file);
  long skipped = total > KEPT ? total - KEPT : 0;
  for (long i = 0; i < skipped && getline(&line, &size, file) > 0;) i++;
  long position = ftell(file);
  while (getline(&line, &size, file) > 0) {
    line[strcspn(line, "\n")] = '\0';
    if (line[0]) add(line);
  }
  if (total > 2 * KEPT) cut_back(path, file, position);
  free(line);
  fclose(file);
}

void nyx__history_append(const char *line) {
  char path[PATH_MAX];
  find_path(path);
  if (path[0] == '\0') return;
  make_folders(path);
  FILE *file = open_file(path, O_WRONLY | O_APPEND | O_CREAT, "a");
  if (file == NULL) return;
  fprintf(file, "%s\n", line);
  fclose(file);
}
