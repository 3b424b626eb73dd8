/* Checks for C tests. A test is a `static void name(void)`; main runs each with RUN(name)
 * and returns check_done(). Prints TAP: a line per test ("ok 1 - name"), a comment per
 * failed check, and the plan "1..N" at the end. A check outside RUN counts as a test of
 * its own. Checks may be made from several threads. */
#ifndef NYX_SPEC_CHECK_H
#define NYX_SPEC_CHECK_H

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Before a function that computes what is expected: sanitizers, which look for errors of
 * the library, need not follow its every access, which took most of their time; and what
 * is built to be debugged need not be slow here. */
#if defined(__GNUC__) && !defined(__clang__)
#define UNTRACED                                                                         \
  __attribute__((no_sanitize("thread", "address", "undefined"), optimize("O3")))
#else
#define UNTRACED __attribute__((no_sanitize("thread", "address", "undefined")))
#endif
/* The same before one that calls the library or reads what it gave: addresses count. */
#define UNTRACED_CHECK __attribute__((no_sanitize("thread")))

/* How many of `n` random samples are taken, and of a list or of what ends by itself every
 * how many-th: the sanitizer of threads takes twenty times as long, and what they share
 * is in every sample. */
#if defined(__SANITIZE_THREAD__)
#define CHECK_STEP 5
#else
#define CHECK_STEP 1
#endif
#define CHECK_ROUNDS(n) (((n) + CHECK_STEP - 1) / CHECK_STEP)

static int check_tests, check_failed_tests;
static bool check_running;        /* inside RUN */
static atomic_int check_failures; /* of the running test */

/* Counts and reports one check; returns ok. Comments after the tenth are left out. */
__attribute__((format(printf, 5, 6), unused)) static bool check_one(
    bool ok, const char *file, int line, const char *what, const char *format, ...) {
  int failures = ok ? 0 : atomic_fetch_add(&check_failures, 1) + 1;
  if (!check_running) printf("%sok %d - %s\n", ok ? "" : "not ", ++check_tests, what);
  if (!check_running && !ok) check_failed_tests++;
  if (ok || failures > 10) return ok;
  char detail[2048];
  __builtin_va_list args;
  __builtin_va_start(args, format);
  vsnprintf(detail, sizeof detail, format, args);
  __builtin_va_end(args);
  printf("# %s:%d: %s", file, line, what);
  for (const char *c = detail; *c; c++) { /* every line of it is a comment */
    putchar(*c);
    if (*c == '\n') printf("#   ");
  }
  putchar('\n');
  return false;
}

#define CHECK_AT(ok, what, ...) check_one((ok), __FILE__, __LINE__, what, __VA_ARGS__)

/* Each is an expression with the value "it holds". */
#define CHECK(condition) CHECK_AT((condition), #condition, "%s", "")
#define CHECK_INT(got, expected)                                                         \
  __extension__({                                                                        \
    long long check_g = (long long)(got), check_e = (long long)(expected);               \
    CHECK_AT(check_g == check_e, #got, ": got %lld, expected %lld", check_g, check_e);   \
  })
#define CHECK_NEAR(got, expected, tolerance)                                             \
  __extension__({                                                                        \
    double check_g = (double)(got), check_e = (double)(expected);                        \
    CHECK_AT(check_g == check_e || fabs(check_g - check_e) <= (tolerance), #got,         \
             ": got %.17g, expected %.17g within %g", check_g, check_e,                  \
             (double)(tolerance));                                                       \
  })
#define CHECK_STR(got, expected)                                                         \
  __extension__({                                                                        \
    const char *check_g = (got), *check_e = (expected);                                  \
    CHECK_AT(check_g &&strcmp(check_g, check_e) == 0, #got,                              \
             ":\n--- got\n%s\n--- expected\n%s\n---", check_g ? check_g : "(NULL)",      \
             check_e);                                                                   \
  })
#define CHECK_CONTAINS(text, part)                                                       \
  __extension__({                                                                        \
    const char *check_g = (text), *check_e = (part);                                     \
    CHECK_AT(check_g &&strstr(check_g, check_e), #text, ": \"%s\" lacks \"%s\"",         \
             check_g ? check_g : "(NULL)", check_e);                                     \
  })
/* A call returns this status; CHECK_OK shows the message of `ctx` otherwise. */
#define CHECK_STATUS(call, expected)                                                     \
  __extension__({                                                                        \
    nyx_status check_s = (call), check_e = (expected);                                   \
    CHECK_AT(check_s == check_e, #call, ": got %s, expected %s",                         \
             nyx_status_name(check_s), nyx_status_name(check_e));                        \
  })
#define CHECK_OK(ctx, call)                                                              \
  __extension__({                                                                        \
    nyx_status check_s = (call);                                                         \
    CHECK_AT(check_s == NYX_OK, #call, ": %s: %s", nyx_status_name(check_s),             \
             nyx_context_error(ctx));                                                    \
  })
/* Leaves the test when a check does not hold: REQUIRE(CHECK_OK(ctx, call)). */
#define REQUIRE(check)                                                                   \
  do {                                                                                   \
    if (!(check)) return;                                                                \
  } while (0)

#define RUN(test) check_run(#test, test)

/* RUN for a test that runs again with more threads: once is enough for the sanitizer that
 * looks for what these share. */
#if defined(__SANITIZE_THREAD__)
#define RUN_ONE_THREAD(test) ((void)(test))
#else
#define RUN_ONE_THREAD(test) RUN(test)
#endif

__attribute__((unused)) static void check_run(const char *name, void (*test)(void)) {
  check_running = true;
  atomic_store(&check_failures, 0);
  test();
  check_running = false;
  int failures = atomic_load(&check_failures);
  if (failures) check_failed_tests++;
  printf("%sok %d - %s\n", failures ? "not " : "", ++check_tests, name);
  fflush(stdout);
}

/* Reports a test that cannot run here, as TAP's SKIP. */
__attribute__((unused)) static void check_skip(const char *name, const char *why) {
  printf("ok %d - %s # SKIP %s\n", ++check_tests, name, why);
}

/* Prints the plan; what main returns. */
__attribute__((unused)) static int check_done(void) {
  printf("1..%d\n", check_tests);
  return check_failed_tests ? 1 : 0;
}

#endif
