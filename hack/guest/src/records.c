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
static _Atomic int resting;

uint64_t records_acked(void)
{
    return acked;
}

void rest_writer(int rests)
{
    resting = rests;
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

enum { CHUNK = 128 };

/* The last whole record: the writer goes on after it, so that a log is one unbroken run over reboots. */
static uint64_t find_last(int fd, struct record *chunk)
{
    uint64_t n = 0;
    for (;;) {
        ssize_t got = pread(fd, chunk, CHUNK * SECTOR, (off_t)(RECORDS_AT + n * SECTOR));
        ssize_t whole = 0;
        while ((whole + 1) * SECTOR <= got && record_is_whole(&chunk[whole], n + (uint64_t)whole + 1)) whole++;
        n += (uint64_t)whole;
        if (whole < CHUNK) return n;
    }
}

static int disk;
static struct record *r;
static uint64_t end;

static void *write_records(void *unused)
{
    (void)unused;
    uint64_t n = acked;
    while (RECORDS_AT + (n + 1) * SECTOR <= end) {
        while (resting) usleep(100000);
        struct timespec now, rest = {(time_t)pause_seconds, (long)((pause_seconds - (time_t)pause_seconds) * 1e9)};
        clock_gettime(CLOCK_REALTIME, &now);
        fill_record(r, n + 1, (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec);
        if (pwrite(disk, r, SECTOR, (off_t)(RECORDS_AT + n * SECTOR)) == SECTOR)
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

/* Returns once it is known what was acknowledged before this boot, so that nobody is ever told of fewer records. */
void start_writer(double per_second)
{
    pthread_t thread;
    void *buffer;
    uint64_t size = 0;
    pause_seconds = 1 / per_second;
    disk = open_disk(O_RDWR | O_DIRECT | O_DSYNC);
    if (disk < 0 || posix_memalign(&buffer, 4096, CHUNK * SECTOR)) return;
    r = buffer;
    ioctl(disk, BLKGETSIZE64, &size);
    end = size < FILL_AT ? size : FILL_AT;
    acked = find_last(disk, r);
    printf("GUEST records continue after %llu\n", (unsigned long long)acked);
    fflush(stdout);
    pthread_create(&thread, NULL, write_records, NULL);
}

int fill_disk(unsigned long mib)
{
    enum { BYTES = 1 << 20 };
    int fd = open_disk(O_RDWR), failed = 0;
    if (fd < 0) return errno;
    uint64_t *chunk = malloc(BYTES), x = (uint64_t)time(NULL) | 1;
    for (unsigned long i = 0; i < mib && !failed; i++) {
        for (size_t k = 0; k < BYTES / 8; k++) x ^= x << 13, x ^= x >> 7, x ^= x << 17, chunk[k] = x;
        if (pwrite(fd, chunk, BYTES, (off_t)(FILL_AT + i * BYTES)) != BYTES) failed = errno ? errno : ENOSPC;
    }
    if (!failed && fsync(fd)) failed = errno;
    free(chunk);
    close(fd);
    return failed;
}
