/* What the network is to look like, in the one form that all ways of configuring it are turned into. */
#ifndef CLOUD_NETWORK_H
#define CLOUD_NETWORK_H

#include <net/if.h>

#include "address.h"
#include "bytes.h"
#include "document.h"
#include "interface.h"
#include "source.h"

enum { NETWORK_ADDRESSES_MAX = 16, NETWORK_ROUTES_MAX = 32, NETWORK_NAMESERVERS_MAX = 8, METRIC_NONE = -1 };

struct route {
    char to[ADDRESS_MAX]; /* with its prefix */
    char via[ADDRESS_MAX];
    long metric;
    int is_on_link; /* `via` is in none of the link's networks, and reachable nevertheless */
};

struct link {
    struct interface interface;
    char new_name[IF_NAMESIZE]; /* empty: it keeps its name */
    int wants_dhcp;
    long mtu; /* 0: the driver's */
    char addresses[NETWORK_ADDRESSES_MAX][ADDRESS_MAX];
    int address_count;
    struct route routes[NETWORK_ROUTES_MAX];
    int route_count;
};

struct network {
    struct interface interfaces[INTERFACES_MAX];
    int interface_count;
    struct link links[INTERFACES_MAX];
    int link_count;
    char nameservers[NETWORK_NAMESERVERS_MAX][ADDRESS_MAX];
    int nameserver_count;
};

/* Makes the plan for the interfaces that `network` has already: what the source says, else DHCP on all. */
void network_plan(struct network *network, const struct source *source);

/* For those who read a configuration. What they add is checked; what is wrong is said and left out. */

/* The links of the interfaces that fit; they are added where they are missing. Where nothing fits a name, but there is one
 * interface only and no link yet, that one is meant: the kernel's names are not what the configuration's author saw. Returns
 * how many. */
int network_links(struct network *network, const char *name, const char *mac, struct link *found[INTERFACES_MAX]);

void network_add_nameservers(struct network *network, struct node servers);
void link_add_address(struct link *link, const char *address, const char *mask);
void link_add_route(struct link *link, const char *to, const char *mask, const char *via, const char *metric);
void link_set_mtu(struct link *link, const char *mtu);
void link_set_name(struct link *link, const char *name);

/* Read the formats (network_v1.c, network_v2.c, network_openstack.c). */
void network_read_v1(struct network *network, struct node configuration);
void network_read_v2(struct network *network, struct node configuration);
void network_read_openstack(struct network *network, struct node configuration);

#endif
