/* Runs a whole test on every path of the CPU, each in a process of its own, because the
 * choice is made once; NYX_CPU runs it on that one. Read next: cpu_path_test.c,
 * tensors.h.
 */
#ifndef NYX_SPEC_PATHS_H
#define NYX_SPEC_PATHS_H

#include <stdlib.h>

#include "core/device/cpu/cpu.h"
#include "tensors.h"

/* Repeats the TAP of another process with test numbers that follow ours. */
static void repeat_tap(FILE *from, const char *path) {
  char line[4096];
  while (fgets(line, sizeof line, from)) {
    bool failed = strncmp(line, "not ok ", 7) == 0;
    char *name = strstr(line, " - ");
    if (strncmp(line, "1..", 3) == 0) continue;
    if (name && (failed || strncmp(line, "ok ", 3) == 0)) {
      if (failed) check_failed_tests++;
      printf("%sok %d - %s: %s", failed ? "not " : "", ++check_tests, path, name + 3);
    } else {
      fputs(line, stdout);
    }
  }
}

/* Where to begin: what threads share is the same on every path, so that the sanitizer of
 * threads, which takes minutes, sees the last that this machine has. */
static int first_of(const char *const *names) {
  int first = 0;
#if defined(__SANITIZE_THREAD__)
  for (int i = 0; names[i]; i++)
    if (nyx__cpu_path_find(names[i])) first = i;
#else
  (void)names;
#endif
  return first;
}

/* Calls run(), which makes checks with RUN, once per path of `names` (up to a NULL) with
 * `ctx` open; what main returns. `program` is argv[0]. */
static int on_paths(const char *program, const char *const *names, void (*run)(void)) {
  const char *forced = getenv("NYX_CPU");
  if (forced && *forced) {
    if (nyx__cpu_path_find(forced)) {
      must(nyx_context_new(&ctx));
      run();
      nyx_context_free(ctx);
    } else {
      check_skip(forced, "this CPU does not run it");
    }
    return check_done();
  }
  for (int i = first_of(names); names[i]; i++) {
    char command[4096];
    snprintf(command, sizeof command, "NYX_CPU=%s '%s'", names[i], program);
    int failed = check_failed_tests;
    FILE *child = popen(command, "r");
    if (child) repeat_tap(child, names[i]);
    int status = child ? pclose(child) : -1;
    if (status != 0 && failed == check_failed_tests)
      CHECK_AT(false, names[i], " ended with status %d", status);
  }
  return check_done();
}

/* The paths that differ in more than products of narrow types. */
__attribute__((unused)) static int on_every_path(const char *program, void (*run)(void)) {
  static const char *const names[] = {"base", "avx2", "avx512", NULL};
  return on_paths(program, names, run);
}

#endif
