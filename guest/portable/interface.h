/* The machine's network interfaces. */
#ifndef CLOUD_INTERFACE_H
#define CLOUD_INTERFACE_H

#include <net/if.h>

enum { INTERFACES_MAX = 32, MAC_MAX = 18 };

struct interface {
    char name[IF_NAMESIZE];
    char mac[MAC_MAX]; /* lower case */
};

/* Lists the cards, by their number: those are Ethernet and have a device behind them, which bridges and tunnels have not. With
 * `only`, names that end with a NULL, it is those and no others. Returns how many. */
int interface_list(struct interface list[INTERFACES_MAX], const char *const only[]);

/* Whether it is the one that is meant: `mac` in any case, `name` with * and ?; NULL fits all. */
int interface_fits(const struct interface *interface, const char *name, const char *mac);

#endif
