/*
 * The one process of a claim pod: it holds the pod's place on the node, nothing else. It ignores TERM, so that a deleted claim
 * keeps its whole grace period for the guest to move or shut down (the node agent ends it with KILL when the guest is gone),
 * reaps what is left to it, and waits for ever. Runs as any user, needs no file and no privilege.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int number) {
  (void)number;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  sigaction(SIGCHLD, &child, 0);
  sigaction(SIGTERM, &ignore, 0);
  sigaction(SIGINT, &ignore, 0);
  sigaction(SIGHUP, &ignore, 0);
  for (;;) pause();
}
