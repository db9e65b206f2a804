/* The tiny guest's own program: what the parts share. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Records lie behind the boot file system, one in each 512-byte sector: sector i of the region holds record i + 1. */
#define RECORDS_AT (64ull << 20)
/* Bulk data of /fill starts here, so that it never meets a record. */
#define FILL_AT (512ull << 20)
#define SECTOR 512
#define DISK "/dev/vda"

struct record {
    char magic[8];    /* "DROVREC1" */
    uint64_t number;  /* from 1 */
    uint64_t unix_ns; /* when it was made */
    char boot_id[36];
    uint8_t filler[SECTOR - 8 - 8 - 8 - 36 - 4];
    uint32_t crc; /* CRC-32 (IEEE, reflected) of all before it */
} __attribute__((packed));

extern char boot_id[37];

uint32_t crc32_of(const void *data, size_t length);
void fill_record(struct record *r, uint64_t number, uint64_t unix_ns);
int record_is_whole(const struct record *r, uint64_t number);

/* Number of the last record that fsync has answered for; 0 before the first. */
uint64_t records_acked(void);
void start_writer(double per_second);
/* Whether the writer stands still; it goes on a tenth of a second after it no longer does. */
void rest_writer(int rests);
/* Writes MiB of noise at FILL_AT and syncs it; 0, or an errno. */
int fill_disk(unsigned long mib);

/* Dirties a working set of `mib` MiB at `mib_per_second`; 0 stops. */
void set_dirty(unsigned long mib_per_second, unsigned long mib);
/* How much of it has been written in all, MiB. */
unsigned long dirtied_mib(void);
/* Takes and touches memory for good; 0, or an errno. */
int eat_memory(unsigned long mib);

/* Asks the nameserver in /etc/resolv.conf for A and AAAA; addresses as text, at most `max`. Gives how many. */
int resolve(const char *name, char addresses[][64], int max);
/* One ICMP echo to an address (v4 or v6) or a name; milliseconds, or a negative number when nobody answered. */
double ping(const char *target);
/* Leases an address by DHCPv6 and prints it; 0 when it did. */
int dhcp6(const char *interface);

/* Serves HTTP on port 80 and echoes UDP on port 7; does not return. */
void serve(void);
