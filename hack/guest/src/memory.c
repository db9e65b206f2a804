#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static _Atomic unsigned long rate, set, written;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *dirty(void *unused)
{
    (void)unused;
    uint8_t *area = NULL;
    unsigned long have = 0, page = 0, round = 0;
    for (;;) {
        struct timespec rest = {0, 10000000};
        unsigned long mib = set;
        if (mib != have) {
            if (area) munmap(area, have << 20);
            area = mib ? mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;
            if (area == MAP_FAILED) area = NULL, mib = 0;
            have = mib;
            page = 0;
        }
        /* 256 pages are a MiB; a hundredth of a second's worth, then a rest. */
        for (unsigned long i = 0; area && i < rate * 256 / 100; i++) {
            *(unsigned long *)(area + page * 4096) = ++round;
            page = (page + 1) % (have * 256);
            written++;
        }
        nanosleep(&rest, NULL);
    }
    return NULL;
}

unsigned long dirtied_mib(void)
{
    return written / 256;
}

static void begin(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, dirty, NULL);
}

void set_dirty(unsigned long mib_per_second, unsigned long mib)
{
    rate = mib_per_second;
    set = mib_per_second ? mib : 0;
    pthread_once(&once, begin);
}

int eat_memory(unsigned long mib)
{
    void *area = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) return errno;
    memset(area, 0xa5, mib << 20);
    return 0;
}
