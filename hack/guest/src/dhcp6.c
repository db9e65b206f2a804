/* The least of a DHCPv6 client (RFC 8415): SOLICIT, ADVERTISE, REQUEST, REPLY for one address. */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SOLICIT = 1, ADVERTISE = 2, REQUEST = 3, REPLY = 7, CLIENT_ID = 1, SERVER_ID = 2, IA_NA = 3, IA_ADDR = 5, ELAPSED = 8 };

static uint8_t *put(uint8_t *p, uint16_t code, const void *data, uint16_t length)
{
    *p++ = (uint8_t)(code >> 8), *p++ = (uint8_t)code, *p++ = (uint8_t)(length >> 8), *p++ = (uint8_t)length;
    memcpy(p, data, length);
    return p + length;
}

static const uint8_t *find(const uint8_t *p, const uint8_t *end, uint16_t code, uint16_t *length)
{
    while (p + 4 <= end) {
        uint16_t c = (uint16_t)(p[0] << 8 | p[1]);
        *length = (uint16_t)(p[2] << 8 | p[3]);
        if (p + 4 + *length > end) return NULL;
        if (c == code) return p + 4;
        p += 4 + *length;
    }
    return NULL;
}

static ssize_t exchange(int s, const struct sockaddr_in6 *to, const uint8_t *out, size_t length, uint8_t want, uint8_t *in, size_t size)
{
    for (int try = 0; try < 10; try++) {
        struct pollfd wait = {s, POLLIN, 0};
        sendto(s, out, length, 0, (const void *)to, sizeof *to);
        if (poll(&wait, 1, 1000) <= 0) continue;
        ssize_t got = recv(s, in, size, 0);
        if (got > 4 && in[0] == want && !memcmp(in + 1, out + 1, 3)) return got;
    }
    return -1;
}

int dhcp6(const char *interface)
{
    int s = socket(AF_INET6, SOCK_DGRAM, 0);
    struct ifreq r = {0};
    strncpy(r.ifr_name, interface, IFNAMSIZ - 1);
    if (ioctl(s, SIOCGIFHWADDR, &r)) return perror(interface), 1;
    struct sockaddr_in6 from = {.sin6_family = AF_INET6, .sin6_port = htons(546)};
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(547), .sin6_scope_id = if_nametoindex(interface)};
    inet_pton(AF_INET6, "ff02::1:2", &to.sin6_addr);
    if (bind(s, (void *)&from, sizeof from)) return perror("bind"), 1;

    uint8_t duid[10] = {0, 3, 0, 1}, ia[12] = {0, 0, 0, 1}, zero[2] = {0}, out[512], in[1500];
    memcpy(duid + 4, r.ifr_hwaddr.sa_data, 6);
    srandom((unsigned)time(NULL) ^ (unsigned)getpid() ^ duid[9]);
    out[0] = SOLICIT;
    for (int i = 1; i < 4; i++) out[i] = (uint8_t)random();
    uint8_t *p = put(put(put(out + 4, CLIENT_ID, duid, sizeof duid), ELAPSED, zero, 2), IA_NA, ia, sizeof ia);
    ssize_t got = exchange(s, &to, out, (size_t)(p - out), ADVERTISE, in, sizeof in);
    if (got < 0) return fprintf(stderr, "no DHCPv6 server answers\n"), 1;

    uint16_t server_length, ia_length, address_length;
    const uint8_t *server = find(in + 4, in + got, SERVER_ID, &server_length);
    const uint8_t *offer = find(in + 4, in + got, IA_NA, &ia_length);
    if (!server || !offer || server_length > 130 || ia_length > 200) return fprintf(stderr, "a DHCPv6 offer without an address\n"), 1;
    uint8_t request[512];
    request[0] = REQUEST;
    for (int i = 1; i < 4; i++) request[i] = (uint8_t)random();
    p = put(put(put(put(request + 4, CLIENT_ID, duid, sizeof duid), SERVER_ID, server, server_length), ELAPSED, zero, 2), IA_NA, offer, ia_length);
    got = exchange(s, &to, request, (size_t)(p - request), REPLY, in, sizeof in);
    const uint8_t *lease = got < 0 ? NULL : find(in + 4, in + got, IA_NA, &ia_length);
    const uint8_t *address = lease && ia_length > 12 ? find(lease + 12, lease + ia_length, IA_ADDR, &address_length) : NULL;
    char text[64];
    if (!address || !inet_ntop(AF_INET6, address, text, sizeof text)) return fprintf(stderr, "a DHCPv6 reply without an address\n"), 1;
    puts(text);
    return 0;
}
