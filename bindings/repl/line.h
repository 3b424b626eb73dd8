/* Between line.c and the line editor in edit.c. */
#ifndef NYX_REPL_LINE_H
#define NYX_REPL_LINE_H

#include <signal.h>

#include "repl.h"

/* Ctrl-C was pressed; the terminal changed its size or came back from a stop. Set by
 * signal handlers while a line is read. */
extern volatile sig_atomic_t nyx__line_interrupted, nyx__line_resized;

/* The editor on top of libedit; false when it is not there. */
bool nyx__edit_open(lua_State *L);
nyx__line_end nyx__edit_read(const char *prompt, const char **out);
void nyx__edit_remember(const char *line);
void nyx__edit_close(void);

/* history.c: the history file, one line per entry. Errors are nobody's problem: then
 * there is no history. */

/* Calls add for every entry kept, oldest first. */
void nyx__history_load(void (*add)(const char *line));
void nyx__history_append(const char *line);

#endif
