/* DHCP, by busybox's udhcpc: one process for each link, which keeps renewing its lease after this program has ended.
 *
 * At every event udhcpc executes this program, with the event as its only argument and what the server said in the
 * environment; that process configures the link, and tells who started udhcpc, through a pipe, as long as it listens. */
#ifndef CLOUD_LEASE_H
#define CLOUD_LEASE_H

#include "hostname.h"
#include "network.h"

struct leases {
    int pipe;                        /* where they are told; -1: no link wants one */
    char hostname[HOSTNAME_MAX + 1]; /* of the first that names one; empty: none does */
};

/* Asks for leases on all links that want one. */
void lease_start(struct leases *leases, const struct network *network);

/* Waits until there is one, or ten seconds have passed since they were asked for; adds the name servers of those that are
 * there by then. */
void lease_wait(struct leases *leases, struct network *network);

/* Whether a word is one that udhcpc executes this program with; then what it does about it. */
int lease_is_event(const char *word);
int lease_event(const char *event);

#endif
