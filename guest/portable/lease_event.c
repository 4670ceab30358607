/* busybox's networking/udhcp/dhcpc.c says what is in the environment; RFC 3442 for routes without classes. */
#include "lease_event.h"

#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "digits.h"
#include "io.h"
#include "lease.h"
#include "program.h"
#include "setup.h"

#define RESOLV_CONF "/generated/resolv.conf" /* init's, in the initramfs; the workload sees it as /etc/resolv.conf */

enum { METRIC_FIRST = 100, MTU_MIN = 576, WAIT_STEPS = 100, WAIT_STEP_NS = 50 * 1000 * 1000 };

static const char *said(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

int lease_is_event(const char *word)
{
    static const char *const events[] = {"deconfig", "bound", "renew", "nak", "leasefail"};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (strcmp(word, events[i]) == 0)
            return 1;
    return 0;
}

/* Of several links the first one's default route is used. */
static void add_routes(const char *interface, int is_on_link)
{
    char metric[16], *rest;
    snprintf(metric, sizeof metric, "%u", METRIC_FIRST + if_nametoindex(interface));
    if (*said("staticroutes")) { /* then the server's routers do not count */
        rest = strdup(said("staticroutes"));
        for (char *to, *via; (to = strsep(&rest, " ")) && (via = strsep(&rest, " "));)
            if (strcmp(via, "0.0.0.0") == 0)
                SETUP_IP("route", "replace", to, "dev", interface, "metric", metric);
            else if (address_is_one(via))
                setup_route(interface, to, via, metric, is_on_link);
        return;
    }
    rest = strdup(said("router"));
    char *router = strsep(&rest, " ");
    if (address_is_one(router))
        setup_route(interface, "0.0.0.0/0", router, metric, is_on_link);
}

/* Init makes the file only when whoever has started udhcpc has ended. Returns 0, or -1 where it is not there in time. */
static int read_resolv_conf(char *text, size_t size, int steps)
{
    while (read_text(RESOLV_CONF, text, size) <= 0) {
        if (steps-- <= 0)
            return -1;
        nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_NS}, NULL);
    }
    return 0;
}

/* A lease that comes late is nobody's to report to, nor is one that is renewed with other name servers. They take the place of
 * those that are there, unless they are among them: several links may have named theirs. */
static void write_resolv_conf(int steps)
{
    char text[1024] = "", known[1024], *rest = strdup(said("dns"));
    int is_news = 0;
    if (getenv(LEASE_NAMED_VARIABLE) || read_resolv_conf(known, sizeof known, steps) < 0)
        return;
    for (char *server; (server = strsep(&rest, " "));)
        if (address_is_one(server) && strlen(text) + ADDRESS_MAX + 16 < sizeof text) {
            char *line = text + strlen(text);
            sprintf(line, "nameserver %s\n", server);
            is_news |= !strstr(known, line);
        }
    if (is_news)
        write_text(RESOLV_CONF, text);
}

/* Tells who started udhcpc, in one write, which a pipe does not mix with another's. Returns whether anyone listens. */
static int tell(const char *interface, const char *address)
{
    char message[PIPE_BUF];
    int length = snprintf(message, sizeof message, "%s%c%s%c%s%c%s%c", interface, 0, address, 0, said("dns"), 0,
                          said("hostname"), 0);
    int pipe = (int)digits_decimal(said(LEASE_PIPE_VARIABLE), NULL);
    return pipe > 0 && length > 0 && (size_t)length < sizeof message && write_all(pipe, message, (size_t)length) == 0;
}

static int configure(const char *interface, int is_new)
{
    char address[ADDRESS_MAX];
    if (address_with_prefix(said("ip"), *said("mask") ? said("mask") : said("subnet"), address) < 0)
        return EXIT_FAILURE;
    if (digits_decimal(said("mtu"), NULL) >= MTU_MIN)
        SETUP_IP("link", "set", "dev", interface, "mtu", said("mtu"));
    if (!setup_address(interface, address))
        return EXIT_FAILURE;
    add_routes(interface, strcmp(strchr(address, '/'), "/32") == 0);
    if (!is_new || !tell(interface, address))
        write_resolv_conf(is_new ? WAIT_STEPS : 0);
    return EXIT_SUCCESS;
}

int lease_event(const char *event)
{
    const char *interface = said("interface");
    if (strcmp(event, "deconfig") == 0) {
        if (!getenv(LEASE_SHARED_VARIABLE))
            SETUP_IP("-4", "addr", "flush", "dev", interface);
        return SETUP_IP("link", "set", "dev", interface, "up") ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    int is_new = strcmp(event, "bound") == 0;
    return is_new || strcmp(event, "renew") == 0 ? configure(interface, is_new) : EXIT_SUCCESS;
}
