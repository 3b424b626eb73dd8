/* nyx --doctor: what this build and this machine offer, one subject per line, and what
 * could be better. Read next: main.c. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lua/nyx_lua.h"
#include "repl.h"

#define MAX_DEVICES 16

static void heading(const char *name) {
  printf("%-10s ", name);
}

/* Bytes with a unit, or "unknown". */
static const char *size_text(size_t bytes, char out[24]) {
  if (bytes == 0) return "unknown";
  bool kib = bytes < (size_t)1 << 20;
  snprintf(out, 24, "%.4g %s", (double)bytes / (kib ? 0x1p10 : 0x1p20),
           kib ? "KiB" : "MiB");
  return out;
}

static void print_facts(void) {
  nyx_cpu_facts facts;
  char text[3][24];
  nyx_cpu_get(&facts);
  heading("features");
  puts(facts.features[0] ? facts.features : "none beyond the baseline");
  heading("caches");
  printf("%s and %s for each core, %s shared; lines of %zu bytes\n",
         size_text(facts.l1, text[0]), size_text(facts.l2, text[1]),
         size_text(facts.l3, text[2]), facts.line);
  heading("vectors");
  printf("%d registers of %d bytes\n", facts.vector_registers, facts.vector_bytes);
}

/* One line for what several dtypes share. */
static void print_tile(const char *names, nyx_dtype dtype) {
  nyx_cpu_tile tile;
  if (!nyx_cpu_tile_of(dtype, &tile)) return;
  heading("");
  printf("%s: %lldx%lld tiles by %s", names, (long long)tile.rows,
         (long long)tile.columns, tile.unit);
  if (tile.registers) printf(" (%d registers)", tile.registers);
  printf(", %lld terms at a time; packed blocks %.0f and %.0f KiB\n",
         (long long)tile.depth, (double)tile.a_bytes / 1024, (double)tile.b_bytes / 1024);
}

static void print_tiles(void) {
  nyx_cpu_facts facts;
  nyx_cpu_get(&facts);
  print_tile("float32", NYX_FLOAT32);
  print_tile("float64", NYX_FLOAT64);
  print_tile("bfloat16", NYX_BFLOAT16);
  print_tile("int8", NYX_INT8);
  heading("");
  printf("a second factor of up to %.0f KiB is not packed\n",
         (double)facts.in_place_bytes / 1024);
}

static void print_cpu(nyx_context *ctx) {
  nyx_device *cpu;
  const char *forced = getenv("NYX_CPU");
  heading("cpu");
  printf("%s kernels%s%s", nyx_cpu_path(), forced ? ", NYX_CPU=" : "",
         forced ? forced : "");
  if (nyx_device_find(ctx, "cpu", &cpu) == NYX_OK)
    printf(" (%s)", nyx_device_describe(cpu));
  putchar('\n');
  print_facts();
  heading("products");
  printf("bfloat16 by %s, float16 by %s, int8 by %s\n", nyx_cpu_unit(NYX_BFLOAT16),
         nyx_cpu_unit(NYX_FLOAT16), nyx_cpu_unit(NYX_INT8));
  print_tiles();
}

static void print_threads(void) {
  nyx_parallel_info info;
  nyx_parallel_latency latency;
  static const char *const policies[] = {"none", "local", "interleave"};
  char numa[256];
  const char *variable = getenv("NYX_THREADS");
  bool set = variable && *variable;
  nyx_parallel_get(&info);
  if (info.threads_problem[0]) set = false;
  heading("threads");
  printf("%d of %ld cores%s", info.threads, sysconf(_SC_NPROCESSORS_ONLN),
         set ? ", set by NYX_THREADS" : "");
  if (info.allowed[0]) printf("; allowed: %s", info.allowed);
  if (info.quota) printf("; quota of the control group: %d", info.quota);
  printf("; affinity: %s\n", info.affinity);
  if (info.threads_problem[0]) printf("%-10s %s\n", "", info.threads_problem);
  nyx_parallel_measure(info.threads, &latency);
  heading("");
  printf(
      "to share work takes %.1f us, %.1f us with all of them, %.0f us when they sleep\n",
      latency.empty * 1e6, latency.spinning * 1e6, latency.asleep * 1e6);
  heading("numa");
  printf("%d memory node%s; policy: %s\n", info.nodes, info.nodes > 1 ? "s" : "",
         policies[nyx_memory_numa(numa, sizeof numa)]);
  if (info.problem[0]) printf("%-10s %s\n", "", info.problem);
  if (numa[0]) printf("%-10s %s\n", "", numa);
}

static void print_blas(void) {
  const char *blas = nyx_blas_describe();
  heading("blas");
  puts(blas[0] ? blas
               : "none found; matrix products use Nyx's own kernels "
                 "(package libopenblas0-pthread)");
}

static void print_tuning(void) {
  static const char *const modes[] = {"off, fixed rules", "as measured before",
                                      "measuring"};
  nyx_tune_info info;
  nyx_tune_get(&info);
  heading("tuning");
  const char *variable = getenv("NYX_TUNE");
  if (!variable) variable = "";
  printf("%s%s%s; %lld sizes known%s", modes[info.mode], variable[0] ? ", NYX_TUNE=" : "",
         variable, (long long)info.known,
         info.known || info.mode == NYX_TUNE_OFF ? "" : " (nyx --tune measures)");
  printf("%s%s\n", info.file[0] ? ", in " : "", info.file);
  if (info.problem[0]) printf("%-10s %s\n", "", info.problem);
}

static void print_memory(void) {
  nyx_memory_stats stats;
  nyx_memory_get_stats(&stats);
  double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 0x1p30;
  heading("memory");
  printf("%.1f GiB in the machine; limit for tensors: ", gib);
  if (stats.limit) {
    printf("%.1f MiB\n", (double)stats.limit / 0x1p20);
  } else {
    puts("none");
  }
}

static void print_devices(nyx_context *ctx) {
  heading("devices");
  puts("cpu");
  for (int i = 0; i < MAX_DEVICES; i++) {
    char name[32];
    nyx_device *device;
    snprintf(name, sizeof name, i ? "opencl:%d" : "opencl", i);
    if (nyx_device_find(ctx, name, &device) == NYX_OK) {
      heading("");
      printf("%s: %s\n", name, nyx_device_describe(device));
    } else {
      if (i == 0) {
        heading("");
        printf("no opencl: %s\n", nyx_context_error(ctx));
      }
      break;
    }
  }
}

static void print_console(void) {
  heading("console");
#ifdef NYX_LIBEDIT
  puts("line editing, history and completion through libedit");
#else
  puts("plain lines; built without libedit (package libedit-dev)");
#endif
}

static void print_files(void) {
  heading("files");
#ifdef NYX_HAVE_CJSON
  puts("nyx.save and nyx.load through cJSON");
#else
  puts("no nyx.save, no nyx.load; built without cJSON (package libcjson-dev)");
#endif
  heading("");
#ifdef NYX_HAVE_ZLIB
  puts("compressed data through zlib");
#else
  puts("no compressed data; built without zlib (package zlib1g-dev)");
#endif
  heading("");
#ifdef NYX_HAVE_LIBZIP
  puts(".npz files through libzip");
#else
  puts("no .npz files; built without libzip (package libzip-dev)");
#endif
}

/* Where `require` finds nyx; false when it does not. */
static bool print_modules(lua_State *L) {
  heading("lua files");
  printf("%s\n", nyx__paths_root()[0] ? nyx__paths_root() : "not found");
  Dl_info info;
  heading("library");
  puts(dladdr((void *)(uintptr_t)nyx_version, &info) && info.dli_fname ? info.dli_fname
                                                                       : "built in");
  heading("module");
  lua_getglobal(L, "require");
  lua_pushliteral(L, "nyx");
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    puts("require \"nyx\" works");
    lua_pop(L, 1);
    return true;
  }
  const char *message = lua_tostring(L, -1);
  printf("require \"nyx\" fails: %s\n", message ? message : "no message");
  lua_pop(L, 1);
  return false;
}

/* Does one op work? NYX_CPU may name a path that this machine does not have. */
static bool check_op(nyx_context *ctx) {
  nyx_tensor *one = NULL;
  nyx_status status = nyx_tensor_scalar(ctx, 1, NYX_FLOAT32, false, &one);
  if (status != NYX_OK) {
    heading("problem");
    puts(nyx_context_error(ctx));
  }
  nyx_tensor_release(one);
  return status == NYX_OK;
}

int nyx__doctor(lua_State *L) {
  heading("nyx");
  printf("%s (headers %s), %s\n", nyx_version(), NYX_VERSION, LUA_RELEASE);
  bool good = print_modules(L);
  nyx_context *ctx = NULL;
  if (nyx_context_new(&ctx) != NYX_OK) {
    puts("no memory for a context");
    return EXIT_FAILURE;
  }
  print_cpu(ctx);
  print_threads();
  print_blas();
  print_tuning();
  print_memory();
  print_devices(ctx);
  print_console();
  print_files();
  good = check_op(ctx) && good;
  nyx_context_free(ctx);
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
