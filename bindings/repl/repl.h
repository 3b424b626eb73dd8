/* What the files of the nyx executable give each other: finding the Lua files (paths.c),
 * running code (run.c), the interactive session (console.c) with its line editor
 * (line.c), completion (complete.c) and display (show.c), and --doctor (doctor.c). Start
 * at main.c. */
#ifndef NYX_REPL_H
#define NYX_REPL_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <nyx/nyx.h>

/* paths.c */

/* Makes `require` find nyx: its Lua files near the executable, the binding built in. */
void nyx__paths_open(lua_State *L, const char *argv0);
/* The tree that was found, "" if none: a source tree or an install prefix. */
const char *nyx__paths_root(void);

/* run.c */

/* Calls the function below `n_args` arguments on the stack, with a traceback on errors
 * and Ctrl-C turned into one. Gives LUA_OK and `n_results`, or a status and the message.
 */
int nyx__run_call(lua_State *L, int n_args, int n_results);
/* If status is an error: prints the message on top of the stack to stderr, pops it. */
int nyx__run_report(lua_State *L, int status);
/* Load and call, reporting errors. `file` NULL is standard input. */
int nyx__run_string(lua_State *L, const char *code, const char *chunk_name);
int nyx__run_file(lua_State *L, const char *file);
/* `name` or "global=name": requires a module into a global. */
int nyx__run_library(lua_State *L, const char *name);
/* What messages begin with; NULL for none, as in the interactive session. */
void nyx__run_set_program(const char *program);
/* Whose long computations Ctrl-C stops; NULL before the binding is opened. */
void nyx__run_set_context(nyx_context *ctx);

/* console.c */

void nyx__console_run(lua_State *L);

/* line.c */

/* How a line was ended. */
typedef enum nyx__line_end {
  NYX__LINE_TEXT,
  NYX__LINE_CANCELLED,
  NYX__LINE_EOF
} nyx__line_end;

/* Prepares for input; completion looks into L. */
void nyx__line_open(lua_State *L);
/* Reads a line; *out (without the newline) is valid until the next call. */
nyx__line_end nyx__line_read(const char *prompt, const char **out);
/* Puts a line into the history, and into its file. */
void nyx__line_remember(const char *line);
void nyx__line_close(void);

/* complete.c */

/* For the line up to the cursor: pushes a sorted list of what may follow, as full
 * replacements of its last word, and returns where that word begins. */
size_t nyx__complete(lua_State *L, const char *line, size_t length);

/* show.c */

/* Prints the values from stack index `first` to the top, as results of an expression. */
void nyx__show(lua_State *L, int first);

/* doctor.c */

/* Prints what this build and this machine offer; the exit status. */
int nyx__doctor(lua_State *L);

#endif
