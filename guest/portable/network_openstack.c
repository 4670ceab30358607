/* OpenStack's network_data.json: links with hardware addresses, networks on them, and services. */
#include <string.h>

#include "network.h"
#include "say.h"

static void add_services(struct network *network, struct node services)
{
    for (size_t i = 0; i < node_count(services); i++) {
        struct node service = node_item(services, i);
        const char *type = node_get_text(service, "type");
        if (type && strcmp(type, "dns") == 0)
            network_add_nameservers(network, node_get(service, "address"));
    }
}

static void add_routes(struct link *link, struct node routes)
{
    for (size_t i = 0; i < node_count(routes); i++) {
        struct node route = node_item(routes, i);
        link_add_route(link, node_get_text(route, "network"), node_get_text(route, "netmask"),
                       node_get_text(route, "gateway"), NULL);
    }
}

/* The hardware address of the link that a network is on; NULL where there is none. */
static const char *mac_of(struct node links, const char *id)
{
    for (size_t i = 0; id && i < node_count(links); i++) {
        struct node item = node_item(links, i);
        const char *found = node_get_text(item, "id");
        if (found && strcmp(found, id) == 0)
            return node_get_text(item, "ethernet_mac_address");
    }
    return NULL;
}

static void configure(struct network *network, struct node links, struct node item)
{
    struct link *found[INTERFACES_MAX];
    const char *type = node_get_text(item, "type"), *mac = mac_of(links, node_get_text(item, "link"));
    if (!type || !mac) {
        say("network: a network has no type, or no link with a hardware address");
        return;
    }
    int count = network_links(network, NULL, mac, found);
    for (int i = 0; i < count; i++) {
        if (strcmp(type, "ipv4_dhcp") == 0)
            found[i]->wants_dhcp = 1;
        else if (strcmp(type, "ipv4") == 0 || strcmp(type, "ipv6") == 0)
            link_add_address(found[i], node_get_text(item, "ip_address"), node_get_text(item, "netmask"));
        else
            say("network: type %s is not supported; router advertisements are heeded", type);
        add_routes(found[i], node_get(item, "routes"));
    }
    network_add_nameservers(network, node_get(item, "dns_nameservers"));
    add_services(network, node_get(item, "services"));
}

/* The links come first: their MTU holds whatever networks are on them. */
static void set_mtus(struct network *network, struct node links)
{
    for (size_t i = 0; i < node_count(links); i++) {
        struct node item = node_item(links, i);
        const char *mac = node_get_text(item, "ethernet_mac_address"), *mtu = node_get_text(item, "mtu");
        struct link *found[INTERFACES_MAX];
        int count = mac && mtu ? network_links(network, NULL, mac, found) : 0;
        for (int j = 0; j < count; j++)
            link_set_mtu(found[j], mtu);
    }
}

void network_read_openstack(struct network *network, struct node configuration)
{
    struct node links = node_get(configuration, "links"), networks = node_get(configuration, "networks");
    set_mtus(network, links);
    for (size_t i = 0; i < node_count(networks); i++)
        configure(network, links, node_item(networks, i));
    add_services(network, node_get(configuration, "services"));
}
