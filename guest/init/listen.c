#include "listen.h"

#include <stdint.h>
#include <stdio.h>

#include "clock.h"
#include "event.h"

enum { TCP_LISTEN = 0x0A };

static int watched[RUN_PORTS_MAX];
static int watched_count;
static int64_t since_ms; /* on the monotonic clock, like the next */
static int64_t next_look_ms;

/* Start-up is watched closely, a service that takes long less so: one look costs about 0.1 ms under emulation. */
static int interval_ms(int64_t now)
{
    if (now - since_ms < 10 * 1000)
        return 5;
    return now - since_ms < 60 * 1000 ? 50 : 500;
}

void listen_watch(const struct run *run)
{
    since_ms = next_look_ms = clock_ms();
    for (watched_count = 0; watched_count < run->port_count; watched_count++)
        watched[watched_count] = run->ports[watched_count];
}

static void found(int port)
{
    for (int i = 0; i < watched_count; i++) {
        if (watched[i] != port)
            continue;
        watched[i--] = watched[--watched_count];
        event("listening", "%d", port);
        if (watched_count == 0)
            event_plain("ready");
    }
}

/* Goes through the listening sockets of /proc/net/tcp or tcp6, which come before all others. */
static void look_at(const char *path)
{
    char line[256];
    FILE *table = fopen(path, "re");
    if (!table)
        return;
    while (watched_count && fgets(line, sizeof line, table)) {
        unsigned port, state;
        if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x", &port, &state) != 2)
            continue; /* the headline */
        if (state != TCP_LISTEN)
            break;
        found((int)port);
    }
    fclose(table);
}

int listen_look(void)
{
    int64_t now = clock_ms();
    if (watched_count == 0)
        return -1;
    if (now < next_look_ms) /* output may wake the loop much more often */
        return (int)(next_look_ms - now);
    look_at("/proc/net/tcp");
    look_at("/proc/net/tcp6");
    next_look_ms = now + interval_ms(now);
    return watched_count ? interval_ms(now) : -1;
}
