/* cloud-init's "Networking config Version 1": its types `physical` and `nameserver`. */
#include <string.h>

#include "network.h"
#include "say.h"

static void add_routes(struct link *link, struct node routes)
{
    for (size_t i = 0; i < node_count(routes); i++) {
        struct node route = node_item(routes, i);
        const char *to = node_get_text(route, "network");
        if (!to)
            to = node_get_text(route, "destination");
        link_add_route(link, to, node_get_text(route, "netmask"), node_get_text(route, "gateway"),
                       node_get_text(route, "metric"));
    }
}

static void add_subnet(struct network *network, struct link *link, struct node subnet)
{
    const char *type = node_get_text(subnet, "type"), *gateway = node_get_text(subnet, "gateway");
    if (!type)
        return;
    if (strcmp(type, "dhcp") == 0 || strcmp(type, "dhcp4") == 0)
        link->wants_dhcp = 1;
    else if (strcmp(type, "static") == 0 || strcmp(type, "static6") == 0)
        link_add_address(link, node_get_text(subnet, "address"), node_get_text(subnet, "netmask"));
    else if (strcmp(type, "manual") != 0)
        say("network: %s: a subnet of type %s is not supported; router advertisements are heeded",
            link->interface.name, type);
    if (gateway)
        link_add_route(link, NULL, NULL, gateway, NULL);
    add_routes(link, node_get(subnet, "routes"));
    network_add_nameservers(network, node_get(subnet, "dns_nameservers"));
}

static void configure(struct network *network, struct node item)
{
    struct link *found[INTERFACES_MAX];
    struct node subnets = node_get(item, "subnets");
    const char *name = node_get_text(item, "name"), *mac = node_get_text(item, "mac_address");
    int count = network_links(network, mac ? NULL : name, mac, found);
    for (int i = 0; i < count; i++) {
        link_set_mtu(found[i], node_get_text(item, "mtu"));
        if (mac)
            link_set_name(found[i], name);
        for (size_t j = 0; j < node_count(subnets); j++)
            add_subnet(network, found[i], node_item(subnets, j));
    }
}

void network_read_v1(struct network *network, struct node configuration)
{
    struct node items = node_get(configuration, "config");
    for (size_t i = 0; i < node_count(items); i++) {
        struct node item = node_item(items, i);
        const char *type = node_get_text(item, "type");
        if (type && strcmp(type, "physical") == 0)
            configure(network, item);
        else if (type && strcmp(type, "nameserver") == 0)
            network_add_nameservers(network, node_get(item, "address"));
        else
            say("network: an entry of type %s is not supported and ignored", type ? type : "none");
    }
}
