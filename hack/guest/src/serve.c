/* GET lines on TCP port 80, answered with JSON; UDP port 7 echoes. One thread a connection. */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static size_t addresses_json(char *out, size_t size)
{
    struct ifaddrs *all, *a;
    char v4[80] = "null", v6[512] = "", text[64];
    if (getifaddrs(&all)) return (size_t)snprintf(out, size, "\"ipv4\":null,\"ipv6\":[]");
    for (a = all; a; a = a->ifa_next) {
        if (!a->ifa_addr || a->ifa_flags & IFF_LOOPBACK) continue;
        if (a->ifa_addr->sa_family == AF_INET && !strcmp(v4, "null")) {
            inet_ntop(AF_INET, &((struct sockaddr_in *)a->ifa_addr)->sin_addr, text, sizeof text);
            snprintf(v4, sizeof v4, "\"%s\"", text);
        }
        struct sockaddr_in6 *six = (void *)a->ifa_addr;
        if (a->ifa_addr->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr) && strlen(v6) < 400) {
            inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
            sprintf(v6 + strlen(v6), "%s\"%s\"", *v6 ? "," : "", text);
        }
    }
    freeifaddrs(all);
    return (size_t)snprintf(out, size, "\"ipv4\":%s,\"ipv6\":[%s]", v4, v6);
}

static void answer(const char *path, char *out, size_t size)
{
    char name[256] = "", list[8][64];
    unsigned long a = 0, b = 0;
    if (!strcmp(path, "/status")) {
        char host[128] = "", where[700];
        double up = 0;
        FILE *f = fopen("/proc/uptime", "r");
        if (f && fscanf(f, "%lf", &up) != 1) up = 0;
        if (f) fclose(f);
        gethostname(host, sizeof host - 1);
        addresses_json(where, sizeof where);
        unsigned long long n = records_acked();
        snprintf(out, size, "{\"hostname\":\"%s\",\"bootId\":\"%s\",\"uptimeSeconds\":%.2f,\"records\":%llu,\"lastAcked\":%llu,\"dirtiedMib\":%lu,%s}", host, boot_id, up, n, n, dirtied_mib(), where);
    } else if (sscanf(path, "/resolve/%255[-._0-9A-Za-z]", name) == 1) {
        int n = resolve(name, list, 8), used = snprintf(out, size, "{\"name\":\"%s\",\"addresses\":[", name);
        for (int i = 0; i < n; i++) used += snprintf(out + used, size - (size_t)used, "%s\"%s\"", i ? "," : "", list[i]);
        snprintf(out + used, size - (size_t)used, "]}");
    } else if (sscanf(path, "/ping/%255[-._:0-9A-Za-z]", name) == 1) {
        double ms = ping(name);
        snprintf(out, size, "{\"ok\":%s,\"ms\":%.2f}", ms >= 0 ? "true" : "false", ms);
    } else if (sscanf(path, "/fill/%lu", &a) == 1) {
        int failed = fill_disk(a);
        snprintf(out, size, "{\"ok\":%s,\"error\":\"%s\"}", failed ? "false" : "true", failed ? strerror(failed) : "");
    } else if (sscanf(path, "/dirty/%lu/%lu", &a, &b) == 2) {
        set_dirty(a, b);
        snprintf(out, size, "{\"ok\":true}");
    } else if (sscanf(path, "/rest/%lu", &a) == 1) {
        rest_writer(a != 0);
        snprintf(out, size, "{\"ok\":true}");
    } else if (sscanf(path, "/eat/%lu", &a) == 1) {
        int failed = eat_memory(a);
        snprintf(out, size, "{\"ok\":%s}", failed ? "false" : "true");
    } else
        snprintf(out, size, "{\"error\":\"no such path\"}");
}

static void *talk(void *argument)
{
    int s = (int)(intptr_t)argument;
    char in[1024] = "", path[512] = "", body[2048], out[2300];
    struct timeval limit = {5, 0};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    size_t used = 0;
    while (used < sizeof in - 1 && !strstr(in, "\n")) {
        ssize_t got = recv(s, in + used, sizeof in - 1 - used, 0);
        if (got <= 0) break;
        used += (size_t)got;
        in[used] = 0;
    }
    if (sscanf(in, "GET %511s", path) == 1) {
        answer(path, body, sizeof body);
        int n = snprintf(out, sizeof out, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body), body);
        if (send(s, out, (size_t)n, 0) < 0) perror("send");
    }
    shutdown(s, SHUT_WR);
    close(s);
    return NULL;
}

static int listen_on(int type, int port)
{
    int s = socket(AF_INET6, type | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (s < 0 || bind(s, (void *)&any, sizeof any)) perror("bind"), exit(1);
    if (type == SOCK_STREAM && listen(s, 64)) perror("listen"), exit(1);
    return s;
}

static void *echo(void *unused)
{
    (void)unused;
    int s = listen_on(SOCK_DGRAM, 7);
    char data[2048];
    for (;;) {
        struct sockaddr_in6 from;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(s, data, sizeof data, 0, (void *)&from, &length);
        if (got >= 0) sendto(s, data, (size_t)got, 0, (void *)&from, length);
    }
    return NULL;
}

void serve(void)
{
    pthread_t thread;
    int s = listen_on(SOCK_STREAM, 80);
    pthread_create(&thread, NULL, echo, NULL);
    printf("GUEST responder ready\n");
    fflush(stdout);
    for (;;) {
        int client = accept(s, NULL, NULL);
        if (client < 0) continue;
        if (pthread_create(&thread, NULL, talk, (void *)(intptr_t)client))
            close(client);
        else
            pthread_detach(thread);
    }
}
