/* NYX_CPU: every path the CPU runs can be forced, anything else is refused with a message
 * and no computation. Each case runs in a process of its own, because the choice is made
 * once. Read next: core/device/cpu/path.c. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/device/cpu/cpu.h"
#include "core/tensor/tensor.h"

/* Runs `job` in a child with NYX_CPU set; whether it returned true. */
static bool with_path(const char *value, bool (*job)(const char *value)) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    if (value)
      setenv("NYX_CPU", value, 1);
    else
      unsetenv("NYX_CPU");
    _exit(job(value) ? 0 : 1);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static bool computes(const char *value) {
  nyx_context *ctx;
  nyx_tensor *x = NULL, *y = NULL;
  const float data[3] = {1, 2, 3};
  const int64_t shape[1] = {3};
  if (value && *value && strcmp(nyx_cpu_path(), value) != 0) return false;
  if (nyx_context_new(&ctx) != NYX_OK) return false;
  bool ok = nyx_tensor_from_data(ctx, NYX_FLOAT32, 1, shape, data, &x) == NYX_OK &&
            nyx__apply2(ctx, NYX__OP_add, x, x, NULL, &y) == NYX_OK &&
            ((float *)nyx__data(y))[2] == 6;
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  nyx_context_free(ctx);
  return ok;
}

static bool refuses(const char *value) {
  nyx_context *ctx;
  nyx_tensor *x = NULL;
  const int64_t shape[1] = {3};
  if (nyx_context_new(&ctx) != NYX_OK) return false;
  nyx_status status = nyx_tensor_empty(ctx, NYX_FLOAT32, 1, shape, &x);
  bool ok = status == NYX_ERR_DEVICE && x == NULL &&
            strstr(nyx_context_error(ctx), value) &&
            strstr(nyx_context_error(ctx), "base");
  nyx_context_free(ctx);
  return ok;
}

/* The parent never asks for a path: its answer would be the children's. */
static bool follows(const char *value) {
  return nyx__cpu_path_find(value) ? computes(value) : refuses(value);
}

static void forced(void) {
  CHECK(with_path("base", computes));
  CHECK(with_path("avx2", follows));
  CHECK(with_path("avx512", follows));
  CHECK(with_path("avxvnni", follows));
  CHECK(with_path("avx512vnni", follows));
  CHECK(with_path("avx512bf16", follows));
  CHECK(with_path("amx", follows));
  CHECK(with_path("dotprod", follows));
}
static void chosen(void) {
  CHECK(with_path(NULL, computes));
  CHECK(with_path("", computes));
}
static void refused(void) {
  CHECK(with_path("sse9", refuses));
  CHECK(with_path("AVX2", refuses));
}

int main(void) {
  RUN(forced);
  RUN(chosen);
  RUN(refused);
  return check_done();
}
