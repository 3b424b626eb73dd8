/* Reads the lines of the interactive session: with libedit an editor with history and
 * completion, without it (or without a terminal) plain lines. Ctrl-C gives up a line.
 * Read next: complete.c. */
#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "repl.h"

static char *plain_line; /* of getline */
static size_t plain_size;
static bool editing;

/* ---- signals: handlers write to a pipe, so that none is missed between looking at a
 * flag and waiting for a key, whichever thread it reached */

static const int numbers[] = {SIGINT, SIGWINCH, SIGCONT};
#define N_SIGNALS 3
static struct sigaction before[N_SIGNALS];
static int wake[2] = {-1, -1};

static void on_signal(int number) {
  int saved = errno;
  char byte = number == SIGINT ? 'i' : 'r';
  if (write(wake[1], &byte, 1) < 0) { /* full: it is awake anyhow */
  }
  errno = saved;
}

static void watch_signals(void) {
  if (pipe2(wake, O_NONBLOCK | O_CLOEXEC) != 0) return;
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < N_SIGNALS; i++) sigaction(numbers[i], &action, &before[i]);
}

static void ignore_signals(void) {
  if (wake[0] < 0) return;
  for (int i = 0; i < N_SIGNALS; i++) sigaction(numbers[i], &before[i], NULL);
  close(wake[0]);
  close(wake[1]);
  wake[0] = wake[1] = -1;
}

nyx__line_event nyx__line_wait(void) {
  struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                          {.fd = wake[0], .events = POLLIN}};
  for (;;) {
    char bytes[64];
    ssize_t n = wake[0] < 0 ? 0 : read(wake[0], bytes, sizeof bytes);
    if (n > 0)
      return memchr(bytes, 'i', (size_t)n) ? NYX__LINE_INTERRUPT : NYX__LINE_RESIZE;
    if (poll(fds, wake[0] < 0 ? 1 : 2, -1) > 0 && fds[0].revents) return NYX__LINE_KEY;
  }
}

/* ---- lines */

void nyx__line_open(lua_State *L) {
  const char *terminal = getenv("TERM");
  bool capable = terminal && terminal[0] && strcmp(terminal, "dumb") != 0;
  if (!isatty(STDIN_FILENO)) return;
  watch_signals();
  editing = capable && isatty(STDOUT_FILENO) && nyx__edit_open(L);
}

static nyx__line_end read_plain(const char *prompt, const char **out) {
  fputs(prompt, stdout);
  fflush(stdout);
  bool terminal = isatty(STDIN_FILENO);
  /* A terminal gives a line at a time, so nothing is left in stdin's buffer. */
  nyx__line_event event = terminal ? nyx__line_wait() : NYX__LINE_KEY;
  while (event == NYX__LINE_RESIZE) event = nyx__line_wait();
  if (event == NYX__LINE_INTERRUPT) {
    putchar('\n');
    return NYX__LINE_CANCELLED;
  }
  ssize_t n = getline(&plain_line, &plain_size, stdin);
  if (n < 0) {
    if (terminal) putchar('\n');
    return NYX__LINE_EOF;
  }
  if (n > 0 && plain_line[n - 1] == '\n') plain_line[n - 1] = '\0';
  *out = plain_line;
  return NYX__LINE_TEXT;
}

nyx__line_end nyx__line_read(const char *prompt, const char **out) {
  return editing ? nyx__edit_read(prompt, out) : read_plain(prompt, out);
}

void nyx__line_remember(const char *line) {
  if (editing) nyx__edit_remember(line);
}

void nyx__line_close(void) {
  if (editing) nyx__edit_close();
  editing = false;
  ignore_signals();
  free(plain_line);
  plain_line = NULL;
}
