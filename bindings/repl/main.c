/* The nyx executable: options as in the lua program, then scripts, standard input or the
 * interactive session. Read next: run.c (running code), console.c (the session). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

typedef struct options {
  int script; /* index of the script's name in argv; argc when there is none */
  bool interactive, version, statements, no_environment, doctor, help;
  int rest;         /* index of the first word after --bench or --tune, which take all */
  const char *main; /* the function for them; NULL without */
  int bad;          /* index of an option that is not understood; 0 when all are */
} options;

static void print_usage(FILE *out, const char *program) {
  fprintf(out,
          "usage: %s [options] [script [args]]\n"
          "  -e stat    execute string 'stat'\n"
          "  -i         enter interactive mode after executing 'script'\n"
          "  -l mod     require library 'mod' into global 'mod'\n"
          "  -l g=mod   require library 'mod' into global 'g'\n"
          "  -v         show version information\n"
          "  -E         ignore environment variables\n"
          "  -W         turn warnings on\n"
          "  --         stop handling options\n"
          "  -          stop handling options and execute stdin\n"
          "  --doctor   show what nyx found on this machine\n"
          "  --bench [case ...]\n"
          "             time nyx on this machine, beside PyTorch and others that are "
          "there\n"
          "  --tune [case ...]\n"
          "             measure which ways of products and convolutions are fastest "
          "here\n"
          "  --help     show this text\n",
          program);
}

static void print_version(void) {
  printf("Nyx %s  %s\n", nyx_version(), LUA_RELEASE);
  fflush(stdout);
}

/* Options that take a value: the rest of the word, or the next word. */
static bool has_value(char option) {
  return option == 'e' || option == 'l';
}

static options read_options(int argc, char **argv) {
  options o = {.script = argc};
  int i = 1;
  for (; i < argc; i++) {
    const char *a = argv[i];
    if (a[0] != '-' || !strcmp(a, "-")) break;
    if (!strcmp(a, "--")) {
      i++;
      break;
    }
    if (!strcmp(a, "--bench") || !strcmp(a, "--tune")) {
      o.rest = i + 1;
      o.main = a[2] == 'b' ? "return require 'nyx.bench'.main(...)"
                           : "return require 'nyx.bench.tune'.main(select(2, ...))";
      return o;
    }
    if (!strcmp(a, "--doctor")) {
      o.doctor = true;
    } else if (!strcmp(a, "--help")) {
      o.help = true;
    } else if (!strcmp(a, "--version")) {
      o.version = true;
    } else if (has_value(a[1])) {
      o.statements |= a[1] == 'e';
      if (a[2] == '\0' && (++i >= argc || argv[i][0] == '-')) {
        o.bad = i - 1;
        return o;
      }
    } else if (a[2] == '\0' && strchr("ivEW", a[1])) {
      o.interactive |= a[1] == 'i';
      o.version |= a[1] == 'i' || a[1] == 'v';
      o.no_environment |= a[1] == 'E';
    } else {
      o.bad = i;
      return o;
    }
  }
  o.script = i;
  return o;
}

/* The global `arg`: the script at 0, its arguments after, everything else before it. */
static void set_arg(lua_State *L, int argc, char **argv, int script) {
  if (script == argc) script = 0;
  lua_createtable(L, argc - script, script + 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

/* The code in LUA_INIT_5_4, or else LUA_INIT; "@name" is a file. */
static int run_init(lua_State *L) {
  const char *name = "LUA_INIT_5_4";
  const char *init = getenv(name);
  if (init == NULL) init = getenv(name = "LUA_INIT");
  if (init == NULL) return LUA_OK;
  if (init[0] == '@') return nyx__run_file(L, init + 1);
  lua_pushfstring(L, "=%s", name);
  int status = nyx__run_string(L, init, lua_tostring(L, -1));
  lua_pop(L, 1);
  return status;
}

/* -e, -l and -W, in their order. */
static int run_options(lua_State *L, char **argv, int end) {
  for (int i = 1; i < end; i++) {
    char option = argv[i][1];
    if (option == 'W') lua_warning(L, "@on", 0);
    if (!has_value(option)) continue;
    const char *value = argv[i][2] != '\0' ? argv[i] + 2 : argv[++i];
    int status = option == 'e' ? nyx__run_string(L, value, "=(command line)")
                               : nyx__run_library(L, value);
    if (status != LUA_OK) return status;
  }
  return LUA_OK;
}

static int run_script(lua_State *L, char **argv, int script) {
  bool dash = !strcmp(argv[script], "-") && strcmp(argv[script - 1], "--") != 0;
  int status = luaL_loadfile(L, dash ? NULL : argv[script]);
  if (status == LUA_OK) {
    if (lua_getglobal(L, "arg") != LUA_TTABLE) luaL_error(L, "'arg' is not a table");
    int n = (int)luaL_len(L, -1);
    luaL_checkstack(L, n + 3, "too many arguments to script");
    for (int i = 1; i <= n; i++) lua_rawgeti(L, -i, i);
    lua_remove(L, -n - 1);
    status = nyx__run_call(L, n, 0);
  }
  return nyx__run_report(L, status);
}

/* Calls the code with the program and the words: true when it says so. */
static bool run_words(lua_State *L, const char *code, int argc, char **argv, int first) {
  int status = luaL_loadbuffer(L, code, strlen(code), "=nyx");
  if (status == LUA_OK) {
    lua_pushstring(L, argv[0]);
    lua_createtable(L, argc - first, 0);
    for (int i = first; i < argc; i++) {
      lua_pushstring(L, argv[i]);
      lua_rawseti(L, -2, i - first + 1);
    }
    status = nyx__run_call(L, 2, 1);
  }
  return nyx__run_report(L, status) == LUA_OK && lua_toboolean(L, -1);
}

/* A file of measured choices that could not be followed or kept is worth a word, and so
 * are settings in the environment that were ignored. */
static void warn_of_settings(const char *program) {
  char problem[512];
  nyx_tune_problem(problem, sizeof problem);
  if (problem[0]) fprintf(stderr, "%s: tuning file %s\n", program, problem);
  if (getenv("NYX_NUMA")) {
    nyx_memory_numa(problem, sizeof problem);
    if (problem[0]) fprintf(stderr, "%s: %s\n", program, problem);
  }
  if (getenv("NYX_AFFINITY") || getenv("NYX_THREADS")) {
    nyx_parallel_info info;
    nyx_parallel_get(&info);
    if (info.threads_problem[0])
      fprintf(stderr, "%s: %s\n", program, info.threads_problem);
    if (info.problem[0]) fprintf(stderr, "%s: %s\n", program, info.problem);
  }
}

/* Everything that may raise, called protected: pushes true when all went well. */
static int protected_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  options o = read_options(argc, argv);
  luaL_checkversion(L);
  if (o.bad) {
    const char *a = argv[o.bad];
    fprintf(stderr, "%s: ", argv[0]);
    fprintf(stderr,
            has_value(a[1]) ? "'%s' needs argument\n" : "unrecognized option '%s'\n", a);
    print_usage(stderr, argv[0]);
    return 0;
  }
  if (o.help) {
    print_usage(stdout, argv[0]);
    lua_pushboolean(L, 1);
    return 1;
  }
  if (o.version && !o.interactive) print_version();
  if (o.no_environment) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  nyx__paths_open(L, argv[0]);
  set_arg(L, argc, argv, o.script);
  lua_gc(L, LUA_GCGEN, 0, 0); /* as the lua program does */
  if (o.doctor) {
    lua_pushboolean(L, nyx__doctor(L) == EXIT_SUCCESS);
    return 1;
  }
  if (o.main) {
    lua_pushboolean(L, run_words(L, o.main, argc, argv, o.rest));
    return 1;
  }
  if (!o.no_environment && run_init(L) != LUA_OK) return 0;
  if (run_options(L, argv, o.script) != LUA_OK) return 0;
  if (o.script < argc && run_script(L, argv, o.script) != LUA_OK && !o.interactive)
    return 0;
  if (o.interactive) {
    nyx__console_run(L);
  } else if (o.script == argc && !o.statements && !o.version) {
    if (isatty(STDIN_FILENO)) {
      nyx__console_run(L);
    } else if (nyx__run_file(L, NULL) != LUA_OK) {
      return 0;
    }
  }
  lua_pushboolean(L, 1);
  return 1;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (L == NULL) {
    fprintf(stderr, "%s: cannot create state: not enough memory\n", argv[0]);
    return EXIT_FAILURE;
  }
  nyx__run_set_program(argv[0]);
  lua_pushcfunction(L, protected_main);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int status = lua_pcall(L, 2, 1, 0);
  bool done = status == LUA_OK && lua_toboolean(L, -1);
  nyx__run_report(L, status);
  warn_of_settings(argv[0]);
  lua_close(L);
  return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
