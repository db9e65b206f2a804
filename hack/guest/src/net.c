/* Names and echoes, without libc's resolver, which a static program cannot load. */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int word_of(const char *key, char *out, size_t size)
{
    char line[256], k[32], v[200];
    FILE *f = fopen("/etc/resolv.conf", "r");
    int found = 0;
    while (f && !found && fgets(line, sizeof line, f))
        if (sscanf(line, "%31s %199s", k, v) == 2 && !strcmp(k, key)) found = snprintf(out, size, "%s", v) > 0;
    if (f) fclose(f);
    return found;
}

static size_t put_name(uint8_t *p, const char *name)
{
    uint8_t *start = p;
    while (*name) {
        size_t n = strcspn(name, ".");
        if (n == 0 || n > 63) return 0;
        *p++ = (uint8_t)n;
        memcpy(p, name, n);
        p += n;
        name += n + (name[n] == '.');
    }
    *p++ = 0;
    return (size_t)(p - start);
}

static const uint8_t *skip_name(const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p) {
        if ((*p & 0xc0) == 0xc0) return p + 2;
        p += *p + 1;
    }
    return p + 1;
}

static int ask(const char *server, const char *name, uint16_t type, char addresses[][64], int max)
{
    uint8_t q[512] = {0x12, 0x34, 1, 0, 0, 1}, a[1500];
    struct sockaddr_storage to = {0};
    struct sockaddr_in *v4 = (void *)&to;
    struct sockaddr_in6 *v6 = (void *)&to;
    socklen_t length = sizeof *v4;
    int found = 0;
    if (strlen(name) > 200) return 0;
    if (inet_pton(AF_INET, server, &v4->sin_addr) == 1)
        v4->sin_family = AF_INET, v4->sin_port = htons(53);
    else if (inet_pton(AF_INET6, server, &v6->sin6_addr) == 1)
        v6->sin6_family = AF_INET6, v6->sin6_port = htons(53), length = sizeof *v6;
    else
        return 0;
    size_t n = put_name(q + 12, name);
    if (!n) return 0;
    uint8_t *p = q + 12 + n;
    *p++ = 0, *p++ = (uint8_t)type, *p++ = 0, *p++ = 1;
    int s = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int try = 0; try < 2 && !found; try++) {
        if (sendto(s, q, (size_t)(p - q), 0, (void *)&to, length) < 0) break;
        struct pollfd wait = {s, POLLIN, 0};
        if (poll(&wait, 1, 1000) <= 0) continue;
        ssize_t got = recv(s, a, sizeof a, 0);
        if (got < 12) continue;
        const uint8_t *r = a + 12, *end = a + got;
        for (int i = 0; i < (a[4] << 8 | a[5]) && r < end; i++) r = skip_name(r, end) + 4;
        for (int i = 0; i < (a[6] << 8 | a[7]) && r < end; i++) {
            r = skip_name(r, end);
            if (r + 10 > end) break;
            uint16_t t = (uint16_t)(r[0] << 8 | r[1]), len = (uint16_t)(r[8] << 8 | r[9]);
            r += 10;
            if (r + len > end) break;
            if (t == type && found < max && inet_ntop(type == 1 ? AF_INET : AF_INET6, r, addresses[found], 64)) found++;
            r += len;
        }
        break;
    }
    close(s);
    return found;
}

int resolve(const char *name, char addresses[][64], int max)
{
    char server[64], domain[200], full[512];
    if (!word_of("nameserver", server, sizeof server)) return 0;
    int n = ask(server, name, 1, addresses, max);
    n += ask(server, name, 28, addresses + n, max - n);
    if (n == 0 && word_of("search", domain, sizeof domain)) {
        snprintf(full, sizeof full, "%s.%s", name, domain);
        n = ask(server, full, 1, addresses, max);
        n += ask(server, full, 28, addresses + n, max - n);
    }
    return n;
}

static double echo4(struct in_addr address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = address};
    struct icmphdr e = {.type = ICMP_ECHO};
    uint16_t id = (uint16_t)random();
    uint8_t in[1500];
    e.un.echo.id = id;
    uint32_t sum = ICMP_ECHO + id;
    sum = (sum & 0xffff) + (sum >> 16);
    e.checksum = (uint16_t)~sum;
    int s = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    double start = now_ms(), spent = -1;
    sendto(s, &e, sizeof e, 0, (void *)&to, sizeof to);
    for (double left; spent < 0 && (left = start + 2000 - now_ms()) > 0;) {
        struct pollfd wait = {s, POLLIN, 0};
        if (poll(&wait, 1, (int)left + 1) <= 0) break;
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(s, in, sizeof in, 0, (void *)&from, &length);
        struct icmphdr *h = (void *)(in + (in[0] & 15) * 4);
        if (got >= 28 && from.sin_addr.s_addr == address.s_addr && h->type == ICMP_ECHOREPLY && h->un.echo.id == id) spent = now_ms() - start;
    }
    close(s);
    return spent;
}

static double echo6(struct in6_addr address)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = address}, from;
    struct icmp6_hdr e = {.icmp6_type = ICMP6_ECHO_REQUEST}, in[64];
    uint16_t id = (uint16_t)random();
    e.icmp6_id = id;
    int s = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
    double start = now_ms(), spent = -1;
    sendto(s, &e, sizeof e, 0, (void *)&to, sizeof to);
    for (double left; spent < 0 && (left = start + 2000 - now_ms()) > 0;) {
        struct pollfd wait = {s, POLLIN, 0};
        if (poll(&wait, 1, (int)left + 1) <= 0) break;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(s, in, sizeof in, 0, (void *)&from, &length);
        if (got >= 8 && !memcmp(&from.sin6_addr, &address, 16) && in->icmp6_type == ICMP6_ECHO_REPLY && in->icmp6_id == id) spent = now_ms() - start;
    }
    close(s);
    return spent;
}

double ping(const char *target)
{
    struct in_addr v4;
    struct in6_addr v6;
    char addresses[4][64];
    if (inet_pton(AF_INET, target, &v4) == 1) return echo4(v4);
    if (inet_pton(AF_INET6, target, &v6) == 1) return echo6(v6);
    return resolve(target, addresses, 4) > 0 ? ping(addresses[0]) : -1;
}
