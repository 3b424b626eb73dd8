/* Line editing through libedit: history, Tab, Ctrl-C, a terminal that is resized. Without
 * libedit this file says so and line.c reads plain lines. Read next: history.c. */
#include "line.h"

#ifndef NYX_LIBEDIT

bool nyx__edit_open(lua_State *L) {
  (void)L;
  return false;
}
nyx__line_end nyx__edit_read(const char *prompt, const char **out) {
  (void)prompt;
  (void)out;
  return NYX__LINE_EOF;
}
void nyx__edit_remember(const char *line) {
  (void)line;
}
void nyx__edit_close(void) {}

#else

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_SIZE 5000
#define CANCEL_KEY 3 /* Ctrl-C */

static EditLine *editor;
static History *history_list;
static lua_State *state; /* where completion looks */
static const char *current_prompt;
static char *text; /* the line given out last */
static bool cancelled;

static char *give_prompt(EditLine *e) {
  (void)e;
  return (char *)(uintptr_t)current_prompt;
}

/* ---- keys */

/* Reads one character. Ctrl-C, which is a signal, becomes a key of its own; a terminal
 * that changed is drawn again. */
static int read_character(EditLine *e, wchar_t *out) {
  mbstate_t shift = {0};
  for (;;) {
    nyx__line_event event = nyx__line_wait();
    if (event == NYX__LINE_INTERRUPT) {
      tcflush(STDIN_FILENO, TCIFLUSH);
      *out = CANCEL_KEY;
      return 1;
    }
    if (event == NYX__LINE_RESIZE) {
      el_set(e, EL_PREP_TERM, 1);
      el_resize(e);
      el_set(e, EL_REFRESH);
      continue;
    }
    char byte;
    ssize_t n = read(STDIN_FILENO, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return (int)n;
    size_t used = mbrtowc(out, &byte, 1, &shift);
    if (used == (size_t)-2) continue; /* more bytes follow */
    if (used == (size_t)-1) {         /* not a character: skip it */
      memset(&shift, 0, sizeof shift);
      continue;
    }
    return 1;
  }
}

static unsigned char on_cancel(EditLine *e, int key) {
  (void)e;
  (void)key;
  cancelled = true;
  return CC_NEWLINE;
}

/* ---- Tab */

/* Shows the candidates in columns below the line. */
static void list_candidates(lua_State *L, size_t n) {
  size_t widest = 1;
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, (lua_Integer)i);
    if (lua_rawlen(L, -1) > widest) widest = lua_rawlen(L, -1);
    lua_pop(L, 1);
  }
  int columns = 0;
  el_get(editor, EL_GETTC, "co", &columns, (void *)NULL);
  size_t across = (columns > 0 ? (size_t)columns : 80) / (widest + 2);
  if (across == 0) across = 1;
  size_t rows = (n + across - 1) / across;
  putchar('\n');
  for (size_t row = 0; row < rows; row++) {
    for (size_t i = row + 1; i <= n; i += rows) {
      lua_rawgeti(L, -1, (lua_Integer)i);
      const char *name = lua_tostring(L, -1);
      if (i + rows > n) {
        printf("%s\n", name);
      } else {
        printf("%-*s", (int)widest + 2, name);
      }
      lua_pop(L, 1);
    }
  }
  fflush(stdout);
}

/* How many bytes all candidates on top of the stack begin with. */
static size_t common_length(lua_State *L, size_t n) {
  lua_rawgeti(L, -1, 1);
  const char *first = lua_tostring(L, -1);
  size_t common = strlen(first);
  for (size_t i = 2; i <= n; i++) {
    lua_rawgeti(L, -2, (lua_Integer)i);
    const char *other = lua_tostring(L, -1);
    size_t same = 0;
    while (same < common && first[same] == other[same]) same++;
    common = same;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return common;
}

static unsigned char on_tab(EditLine *e, int key) {
  (void)key;
  const LineInfo *info = el_line(e);
  size_t length = (size_t)(info->cursor - info->buffer);
  size_t blank = 0;
  while (blank < length && (info->buffer[blank] == ' ' || info->buffer[blank] == '\t'))
    blank++;
  if (blank == length) { /* nothing to complete: indent */
    el_insertstr(e, "  ");
    return CC_REFRESH;
  }
  unsigned char result = CC_ERROR; /* a beep */
  int top = lua_gettop(state);
  char *line = strndup(info->buffer, length);
  if (line == NULL) return result;
  size_t start = nyx__complete(state, line, length);
  size_t n = lua_rawlen(state, -1);
  if (n > 0) {
    size_t common = common_length(state, n), typed = length - start;
    lua_rawgeti(state, -1, 1);
    const char *first = lua_tostring(state, -1);
    if (common > typed) {
      char *rest = strndup(first + typed, common - typed);
      if (rest) el_insertstr(e, rest);
      free(rest);
      result = CC_REFRESH;
    } else if (n > 1) {
      lua_pop(state, 1);
      list_candidates(state, n);
      result = CC_REDISPLAY;
    }
  }
  free(line);
  lua_settop(state, top);
  return result;
}

/* ---- lines */

static void add_history(const char *line) {
  HistEvent event;
  history(history_list, &event, H_ENTER, line);
}

/* libedit drops keys that the locale has no characters for. Containers have none, or name
 * one that is not installed. */
static void choose_characters(void) {
  const char *locale = setlocale(LC_CTYPE, "");
  if (locale && strcmp(locale, "C") != 0 && strcmp(locale, "POSIX") != 0) return;
  setlocale(LC_CTYPE, "C.UTF-8"); /* where the system has it */
}

bool nyx__edit_open(lua_State *L) {
  choose_characters();
  editor = el_init("nyx", stdin, stdout, stderr);
  if (editor == NULL) return false;
  state = L;
  el_set(editor, EL_PROMPT, give_prompt);
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_SIGNAL, 0);
  /* Ctrl-C does not take away keys that waiting has seen: reading them would block. */
  el_set(editor, EL_SETTY, "-d", "+noflsh", (void *)NULL);
  el_set(editor, EL_GETCFN, read_character);
  el_set(editor, EL_ADDFN, "nyx-complete", "complete a name", on_tab);
  el_set(editor, EL_ADDFN, "nyx-cancel", "give up the line", on_cancel);
  el_set(editor, EL_BIND, "^I", "nyx-complete", (void *)NULL);
  el_set(editor, EL_BIND, "^C", "nyx-cancel", (void *)NULL);
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", (void *)NULL);
  el_set(editor, EL_BIND, "\\e[1;5C", "em-next-word", (void *)NULL);
  el_set(editor, EL_BIND, "\\e[1;5D", "ed-prev-word", (void *)NULL);
  el_set(editor, EL_BIND, "\\e[3~", "ed-delete-next-char", (void *)NULL);
  el_source(editor, NULL); /* ~/.editrc */
  history_list = history_init();
  if (history_list) {
    HistEvent event;
    history(history_list, &event, H_SETSIZE, HISTORY_SIZE);
    history(history_list, &event, H_SETUNIQUE, 1);
    el_set(editor, EL_HIST, history, history_list);
    nyx__history_load(add_history);
  }
  return true;
}

nyx__line_end nyx__edit_read(const char *prompt, const char **out) {
  int length = 0;
  current_prompt = prompt;
  cancelled = false;
  el_set(editor, EL_PREP_TERM, 1); /* before the prompt says that keys are awaited */
  const char *line = el_gets(editor, &length);
  free(text);
  text = NULL;
  if (cancelled) {
    el_reset(editor);
    fputs("^C\n", stdout);
    fflush(stdout);
    return NYX__LINE_CANCELLED;
  }
  if (line == NULL || length <= 0) {
    putchar('\n');
    return NYX__LINE_EOF;
  }
  text = strndup(line, strcspn(line, "\n"));
  if (text == NULL) return NYX__LINE_CANCELLED;
  *out = text;
  return NYX__LINE_TEXT;
}

void nyx__edit_remember(const char *line) {
  if (history_list == NULL) return;
  add_history(line);
  nyx__history_append(line);
}

void nyx__edit_close(void) {
  el_end(editor);
  if (history_list) history_end(history_list);
  free(text);
  editor = NULL;
  history_list = NULL;
  text = NULL;
}

#endif
