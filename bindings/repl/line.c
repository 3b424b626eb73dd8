/* Reads the lines of the interactive session: with libedit an editor with history and
 * completion, without it (or without a terminal) plain lines. Ctrl-C gives up a line.
 * Read next: complete.c. */
#include "line.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

static char *plain_line; /* of getline */
static size_t plain_size;
static bool editing;

/* Set by signals while a line is read. */
volatile sig_atomic_t nyx__line_interrupted, nyx__line_resized;

static void on_signal(int number) {
  if (number == SIGINT)
    nyx__line_interrupted = 1;
  else
    nyx__line_resized = 1; /* also after SIGCONT: the terminal needs its mode again */
}

void nyx__line_open(lua_State *L) {
  const char *terminal = getenv("TERM");
  bool capable = terminal && terminal[0] && strcmp(terminal, "dumb") != 0;
  editing = capable && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && nyx__edit_open(L);
}

static nyx__line_end read_plain(const char *prompt, const char **out) {
  fputs(prompt, stdout);
  fflush(stdout);
  errno = 0;
  ssize_t n = getline(&plain_line, &plain_size, stdin);
  if (n < 0) {
    clearerr(stdin);
    if (nyx__line_interrupted) {
      putchar('\n');
      return NYX__LINE_CANCELLED;
    }
    if (isatty(STDIN_FILENO)) putchar('\n');
    return NYX__LINE_EOF;
  }
  if (n > 0 && plain_line[n - 1] == '\n') plain_line[n - 1] = '\0';
  *out = plain_line;
  return NYX__LINE_TEXT;
}

nyx__line_end nyx__line_read(const char *prompt, const char **out) {
  static const int numbers[] = {SIGINT, SIGWINCH, SIGCONT};
  struct sigaction action = {.sa_handler = on_signal}, before[3];
  sigemptyset(&action.sa_mask);
  nyx__line_interrupted = nyx__line_resized = 0;
  for (int i = 0; i < 3; i++) sigaction(numbers[i], &action, &before[i]);
  nyx__line_end end = editing ? nyx__edit_read(prompt, out) : read_plain(prompt, out);
  for (int i = 0; i < 3; i++) sigaction(numbers[i], &before[i], NULL);
  return end;
}

void nyx__line_remember(const char *line) {
  if (editing) nyx__edit_remember(line);
}

void nyx__line_close(void) {
  if (editing) nyx__edit_close();
  editing = false;
  free(plain_line);
  plain_line = NULL;
}
