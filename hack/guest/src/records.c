/* The writer: numbered, checksummed records on the raw disk, each on stable storage before it counts as acknowledged. */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t acked;
static double pause_seconds;

uint64_t records_acked(void)
{
    return acked;
}

uint32_t crc32_of(const void *data, size_t length)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
            table[i] = c;
        }
    uint32_t crc = ~0u;
    for (const uint8_t *p = data; length--; p++) crc = table[(crc ^ *p) & 255] ^ (crc >> 8);
    return ~crc;
}

void fill_record(struct record *r, uint64_t number, uint64_t unix_ns)
{
    memcpy(r->magic, "DROVREC1", 8);
    r->number = number;
    r->unix_ns = unix_ns;
    memcpy(r->boot_id, boot_id, 36);
    uint64_t x = number * 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < sizeof r->filler; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        r->filler[i] = (uint8_t)x;
    }
    r->crc = crc32_of(r, offsetof(struct record, crc));
}

int record_is_whole(const struct record *r, uint64_t number)
{
    return !memcmp(r->magic, "DROVREC1", 8) && r->number == number && r->crc == crc32_of(r, offsetof(struct record, crc));
}

static int open_disk(int flags)
{
    int fd = open(DISK, flags | O_CLOEXEC);
    if (fd < 0) fprintf(stderr, "GUEST cannot open %s: %s\n", DISK, strerror(errno));
    return fd;
}

/* The last whole record: the writer goes on after it, so that a log is one unbroken run over reboots. */
static uint64_t find_last(int fd, struct record *r)
{
    uint64_t n = 0;
    while (pread(fd, r, SECTOR, (off_t)(RECORDS_AT + n * SECTOR)) == SECTOR && record_is_whole(r, n + 1)) n++;
    return n;
}

static void *write_records(void *unused)
{
    (void)unused;
    int fd = open_disk(O_RDWR | O_DIRECT | O_DSYNC);
    void *buffer;
    if (fd < 0 || posix_memalign(&buffer, 4096, SECTOR)) return NULL;
    struct record *r = buffer;
    uint64_t size = 0;
    ioctl(fd, BLKGETSIZE64, &size);
    uint64_t end = size < FILL_AT ? size : FILL_AT;
    uint64_t n = find_last(fd, r);
    acked = n;
    printf("GUEST records continue after %llu\n", (unsigned long long)n);
    fflush(stdout);
    while (RECORDS_AT + (n + 1) * SECTOR <= end) {
        struct timespec now, rest = {(time_t)pause_seconds, (long)((pause_seconds - (time_t)pause_seconds) * 1e9)};
        clock_gettime(CLOCK_REALTIME, &now);
        fill_record(r, n + 1, (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec);
        if (pwrite(fd, r, SECTOR, (off_t)(RECORDS_AT + n * SECTOR)) == SECTOR)
            acked = ++n;
        else {
            printf("GUEST record %llu: %s\n", (unsigned long long)n + 1, strerror(errno));
            fflush(stdout);
            rest.tv_sec = 1;
        }
        nanosleep(&rest, NULL);
    }
    printf("GUEST the record region is full\n");
    fflush(stdout);
    return NULL;
}

void start_writer(double per_second)
{
    pthread_t thread;
    pause_seconds = 1 / per_second;
    pthread_create(&thread, NULL, write_records, NULL);
}

int fill_disk(unsigned long mib)
{
    enum { CHUNK = 1 << 20 };
    int fd = open_disk(O_RDWR), failed = 0;
    if (fd < 0) return errno;
    uint64_t *chunk = malloc(CHUNK), x = (uint64_t)time(NULL) | 1;
    for (unsigned long i = 0; i < mib && !failed; i++) {
        for (size_t k = 0; k < CHUNK / 8; k++) x ^= x << 13, x ^= x >> 7, x ^= x << 17, chunk[k] = x;
        if (pwrite(fd, chunk, CHUNK, (off_t)(FILL_AT + i * CHUNK)) != CHUNK) failed = errno ? errno : ENOSPC;
    }
    if (!failed && fsync(fd)) failed = errno;
    free(chunk);
    close(fd);
    return failed;
}
