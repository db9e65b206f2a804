#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char boot_id[37];

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "dhcp6")) return dhcp6(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!f || !fgets(boot_id, sizeof boot_id, f)) {
        perror("boot_id");
        return 1;
    }
    fclose(f);
    start_writer(argc > 1 ? atof(argv[1]) : 20);
    serve();
}
