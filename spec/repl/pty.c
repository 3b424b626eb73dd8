/* Runs a program on a terminal of its own and talks to it, for the specs of the REPL:
 *   pty <seconds> <program> [arguments] < dialogue
 * Lines of the dialogue: "send TEXT" types it (\n \r \t \e \xHH are understood), "expect
 * TEXT" waits for it in the output, "refuse TEXT" fails if it came since the last expect,
 * "resize COLUMNS". At the end of the dialogue the program must end by itself. Prints
 * what the terminal showed; exits with the program's status, 100 + signal, or 99 when the
 * dialogue went differently. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char shown[1 << 20]; /* everything the terminal showed */
static size_t shown_length, seen;
static int terminal;
static pid_t program;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fail(const char *what, const char *text) {
  printf("%s\n---- %s: %s\n", shown, what, text);
  kill(program, SIGKILL);
  exit(99);
}

/* Reads output for at most `seconds`; 0 at its end. */
static int read_some(double seconds) {
  struct pollfd wait = {.fd = terminal, .events = POLLIN};
  if (seconds <= 0 || poll(&wait, 1, (int)(seconds * 1000) + 1) <= 0) return 1;
  ssize_t n = read(terminal, shown + shown_length, sizeof shown - 1 - shown_length);
  if (n <= 0) return 0;
  shown_length += (size_t)n;
  return 1;
}

static void expect(const char *text, double seconds) {
  double end = now() + seconds;
  for (;;) {
    char *found = strstr(shown + seen, text);
    if (found) {
      seen = (size_t)(found - shown) + strlen(text);
      return;
    }
    if (now() > end) fail("did not appear", text);
    if (!read_some(end - now())) fail("ended before", text);
  }
}

/* Replaces \n \r \t \e \\ \xHH in place; returns the length. */
static size_t unescape(char *s) {
  char *out = s;
  for (char *p = s; *p; p++) {
    if (*p != '\\') {
      *out++ = *p;
      continue;
    }
    switch (*++p) {
      case 'n': *out++ = '\n'; break;
      case 'r': *out++ = '\r'; break;
      case 't': *out++ = '\t'; break;
      case 'e': *out++ = 27; break;
      case 'x': {
        char hex[3] = {p[1], p[2], 0};
        *out++ = (char)strtol(hex, NULL, 16);
        p += 2;
        break;
      }
      default: *out++ = *p;
    }
  }
  *out = '\0';
  return (size_t)(out - s);
}

static void resize(int columns) {
  struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
  ioctl(terminal, TIOCSWINSZ, &size);
}

static void start(char **argv) {
  terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) {
    perror("posix_openpt");
    exit(98);
  }
  resize(80);
  program = fork();
  if (program != 0) return;
  setsid();
  int side = open(ptsname(terminal), O_RDWR);
  ioctl(side, TIOCSCTTY, 0);
  for (int fd = 0; fd < 3; fd++) dup2(side, fd);
  close(terminal);
  execvp(argv[0], argv);
  perror(argv[0]);
  _exit(127);
}

static void run_line(char *line, double seconds) {
  line[strcspn(line, "\n")] = '\0';
  char *text = strchr(line, ' ');
  text = text ? text + 1 : line + strlen(line);
  size_t length = unescape(text);
  if (!strncmp(line, "send", 4)) {
    if (write(terminal, text, length) != (ssize_t)length) fail("cannot type", text);
  } else if (!strncmp(line, "expect", 6)) {
    expect(text, seconds);
  } else if (!strncmp(line, "refuse", 6)) {
    if (strstr(shown + seen, text)) fail("appeared", text);
  } else if (!strncmp(line, "resize", 6)) {
    resize(atoi(text));
  }
}

int main(int argc, char **argv) {
  if (argc < 3) return 98;
  double seconds = atof(argv[1]);
  start(argv + 2);
  char line[4096];
  while (fgets(line, sizeof line, stdin)) run_line(line, seconds);
  double end = now() + seconds;
  while (now() < end && read_some(end - now())) {
  }
  int status = 0;
  pid_t ended = 0;
  while ((ended = waitpid(program, &status, WNOHANG)) == 0 && now() < end) usleep(2000);
  if (ended != program) fail("did not end", argv[2]);
  fputs(shown, stdout);
  return WIFSIGNALED(status) ? 100 + WTERMSIG(status) : WEXITSTATUS(status);
}
