#include "lease.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lease_event.h"
#include "program.h"
#include "say.h"

enum { WAIT_MS = 10 * 1000, MESSAGES_MAX = 8192 };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void start_one(const struct link *link, int pipe)
{
    char descriptor[16];
    snprintf(descriptor, sizeof descriptor, "%d", pipe);
    setenv(LEASE_PIPE_VARIABLE, descriptor, 1);
    if (link->address_count)
        setenv(LEASE_SHARED_VARIABLE, "1", 1);
    else
        unsetenv(LEASE_SHARED_VARIABLE);
    const char *const args[] = {
        "udhcpc", "-f", "-i", link->interface.name, "-s", program_self(), "-t", "5", "-T", "1", "-A", "5",
        "-O", "staticroutes", "-O", "mtu", NULL,
    };
    if (program_start(args, pipe) < 0)
        say("network: udhcpc for %s: %m", link->interface.name);
}

void lease_start(struct leases *leases, const struct network *network)
{
    int ends[2];
    *leases = (struct leases){.pipe = -1};
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return;
    if (network->nameserver_count)
        setenv(LEASE_NAMED_VARIABLE, "1", 1);
    int count = 0;
    for (int i = 0; i < network->link_count; i++)
        if (network->links[i].wants_dhcp) {
            start_one(&network->links[i], ends[1]);
            count++;
        }
    close(ends[1]);
    if (count)
        leases->pipe = ends[0];
    else
        close(ends[0]);
}

/* Takes a message's strings: interface, address, name servers with blanks between, host name. Returns its length, 0 where it
 * is not whole yet. */
static size_t take(struct leases *leases, struct network *network, char *message, size_t length)
{
    char *strings[LEASE_STRINGS], *next = message;
    for (int i = 0; i < LEASE_STRINGS; i++) {
        char *end = memchr(next, '\0', (size_t)(message + length - next));
        if (!end)
            return 0;
        strings[i] = next;
        next = end + 1;
    }
    say("network: %s has %s by DHCP", strings[0], strings[1]);
    char *rest = strings[2];
    for (char *server; (server = strsep(&rest, " "));)
        if (address_is_one(server) && network->nameserver_count < NETWORK_NAMESERVERS_MAX)
            strcpy(network->nameservers[network->nameserver_count++], server);
    if (!*leases->hostname && *strings[3])
        hostname_take(strings[3], leases->hostname);
    return (size_t)(next - message);
}

static int has_address(const struct network *network)
{
    for (int i = 0; i < network->link_count; i++)
        if (network->links[i].address_count)
            return 1;
    return 0;
}

void lease_wait(struct leases *leases, struct network *network)
{
    char message[MESSAGES_MAX];
    size_t length = 0;
    int count = has_address(network); /* a link without DHCP is as good */
    int64_t deadline = now_ms() + WAIT_MS;
    while (leases->pipe >= 0) {
        int64_t left = count ? 0 : deadline - now_ms();
        struct pollfd waiting = {.fd = leases->pipe, .events = POLLIN};
        int ready = poll(&waiting, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t got = ready > 0 ? read(leases->pipe, message + length, sizeof message - length) : 0;
        if (got <= 0)
            break;
        length += (size_t)got;
        for (size_t taken; (taken = take(leases, network, message, length)); count++)
            memmove(message, message + taken, length -= taken);
    }
    if (!count && leases->pipe >= 0)
        say("network: no DHCP server has answered in %d s; one that answers later is heeded", WAIT_MS / 1000);
    if (leases->pipe >= 0)
        close(leases->pipe);
}
