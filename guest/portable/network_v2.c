/* cloud-init's "Networking config Version 2", which is netplan's: the Ethernet part of it. */
#include "keys.h"
#include "network.h"
#include "say.h"

static void add_routes(struct link *link, struct node routes)
{
    for (size_t i = 0; i < node_count(routes); i++) {
        struct node route = node_item(routes, i);
        int before = link->route_count;
        link_add_route(link, node_get_text(route, "to"), NULL, node_get_text(route, "via"), node_get_text(route, "metric"));
        if (link->route_count > before)
            link->routes[before].is_on_link = node_is_true(node_get(route, "on-link"), 0);
    }
}

static void add_gateway(struct link *link, const char *gateway)
{
    if (gateway)
        link_add_route(link, NULL, NULL, gateway, NULL);
}

static void configure(struct network *network, struct link *link, struct node ethernet)
{
    static const char *const known_nameservers[] = {"addresses"};
    struct node addresses = node_get(ethernet, "addresses"), nameservers = node_get(ethernet, "nameservers");
    link->wants_dhcp = node_is_true(node_get(ethernet, "dhcp4"), 0);
    if (node_is_true(node_get(ethernet, "dhcp6"), 0))
        say("network: %s: dhcp6 is not supported; router advertisements are heeded", link->interface.name);
    for (size_t i = 0; i < node_count(addresses); i++) {
        struct node item = node_item(addresses, i);
        link_add_address(link, node_is_map(item) ? node_key(item, 0) : node_text(item), NULL);
    }
    add_gateway(link, node_get_text(ethernet, "gateway4"));
    add_gateway(link, node_get_text(ethernet, "gateway6"));
    add_routes(link, node_get(ethernet, "routes"));
    link_set_mtu(link, node_get_text(ethernet, "mtu"));
    link_set_name(link, node_get_text(ethernet, "set-name"));
    keys_say_unknown("network", nameservers, known_nameservers, sizeof known_nameservers / sizeof known_nameservers[0]);
    network_add_nameservers(network, node_get(nameservers, "addresses"));
}

void network_read_v2(struct network *network, struct node configuration)
{
    static const char *const known[] = {"version", "renderer", "ethernets"};
    static const char *const known_ethernet[] = {
        "match", "set-name", "dhcp4", "dhcp6", "addresses", "gateway4", "gateway6", "routes", "nameservers", "mtu",
        "optional", "critical", "dhcp-identifier",
    };
    struct node ethernets = node_get(configuration, "ethernets");
    struct link *found[INTERFACES_MAX];
    keys_say_unknown("network", configuration, known, sizeof known / sizeof known[0]);
    for (size_t i = 0; node_is_map(ethernets) && i < node_count(ethernets); i++) {
        struct node ethernet = node_value(ethernets, i), match = node_get(ethernet, "match");
        const char *name = node_is_map(match) ? node_get_text(match, "name") : node_key(ethernets, i);
        keys_say_unknown("network", ethernet, known_ethernet, sizeof known_ethernet / sizeof known_ethernet[0]);
        int count = network_links(network, name, node_get_text(match, "macaddress"), found);
        for (int j = 0; j < count; j++)
            configure(network, found[j], ethernet);
    }
}
