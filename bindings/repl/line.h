/* Between line.c and the line editor in edit.c. */
#ifndef NYX_REPL_LINE_H
#define NYX_REPL_LINE_H

#include "repl.h"

typedef enum nyx__line_event {
  NYX__LINE_KEY,       /* there is something to read */
  NYX__LINE_INTERRUPT, /* Ctrl-C */
  NYX__LINE_RESIZE     /* the terminal has another size, or is back from a stop */
} nyx__line_event;

/* Waits for one of these. */
nyx__line_event nyx__line_wait(void);

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
