/* Carrying a network's plan out, with busybox's ip. */
#ifndef CLOUD_SETUP_H
#define CLOUD_SETUP_H

#include "network.h"

/* Brings lo and all links up, with their names, addresses and routes, but for those that DHCP brings. What fails is said. */
void setup_network(struct network *network);

/* Adds a route; NULL for `metric` is the kernel's. */
void setup_route(const char *interface, const char *to, const char *via, const char *metric, int is_on_link);

/* Gives an interface an address, with its prefix. Returns whether it has it. */
int setup_address(const char *interface, const char *address);

/* ip with these arguments. Returns whether it succeeded. */
#define SETUP_IP(...) program_run((const char *const[]){"ip", __VA_ARGS__, NULL})

#endif
