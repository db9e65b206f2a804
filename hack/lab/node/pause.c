/* PID 1 of a lab node, and the process of pod sandboxes: reaps what is left to it, ends on TERM. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void quit(int number) { _exit(128 + number); }

static void reap(int number) {
  (void)number;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
  sigaction(SIGCHLD, &child, 0);
  signal(SIGTERM, quit);
  signal(SIGINT, quit);
  for (;;) pause();
}
