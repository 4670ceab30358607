#include "network.h"

#include <stdio.h>
#include <string.h>

#include "digits.h"
#include "say.h"

enum { MTU_MIN = 576, MTU_MAX = 65536 };

static struct link *link_of(struct network *network, const struct interface *interface)
{
    for (int i = 0; i < network->link_count; i++)
        if (strcmp(network->links[i].interface.name, interface->name) == 0)
            return &network->links[i];
    struct link *link = &network->links[network->link_count++];
    *link = (struct link){.interface = *interface};
    return link;
}

int network_links(struct network *network, const char *name, const char *mac, struct link *found[INTERFACES_MAX])
{
    int count = 0;
    for (int i = 0; i < network->interface_count; i++)
        if (interface_fits(&network->interfaces[i], name, mac))
            found[count++] = link_of(network, &network->interfaces[i]);
    if (!count && !mac && network->interface_count == 1 && network->link_count == 0) {
        say("network: %s is taken to be %s, the only interface", name, network->interfaces[0].name);
        found[count++] = link_of(network, &network->interfaces[0]);
    }
    if (!count)
        say("network: no interface fits %s", mac ? mac : name ? name : "what is configured");
    return count;
}

void network_add_nameservers(struct network *network, struct node servers)
{
    for (size_t i = 0; i < node_count_or_one(servers); i++) {
        const char *text = node_text(node_item_or_one(servers, i));
        if (!address_is_one(text))
            say("network: a name server is not an address: %s", text ? text : "");
        else if (network->nameserver_count < NETWORK_NAMESERVERS_MAX)
            snprintf(network->nameservers[network->nameserver_count++], ADDRESS_MAX, "%s", text);
    }
}

void link_add_address(struct link *link, const char *address, const char *mask)
{
    if (link->address_count == NETWORK_ADDRESSES_MAX ||
        address_with_prefix(address, mask, link->addresses[link->address_count]) < 0)
        say("network: %s: an address is none, or one too many: %s", link->interface.name, address ? address : "");
    else
        link->address_count++;
}

void link_add_route(struct link *link, const char *to, const char *mask, const char *via, const char *metric)
{
    struct route route = {.metric = METRIC_NONE};
    const char *end = "";
    if (!to || strcmp(to, "default") == 0) {
        to = via && address_is_ipv6(via) ? "::" : "0.0.0.0";
        mask = "0";
    }
    if (metric)
        route.metric = (long)digits_decimal(metric, &end);
    if (!address_is_one(via) || *end || link->route_count == NETWORK_ROUTES_MAX ||
        address_with_prefix(to, mask, route.to) < 0) {
        say("network: %s: a route is none, or one too many: %s", link->interface.name, to);
        return;
    }
    snprintf(route.via, sizeof route.via, "%s", via);
    link->routes[link->route_count++] = route;
}

void link_set_mtu(struct link *link, const char *text)
{
    const char *end;
    long mtu = text ? (long)digits_decimal(text, &end) : 0;
    if (text && (*end || mtu < MTU_MIN || mtu > MTU_MAX))
        say("network: %s: %s is no MTU", link->interface.name, text);
    else if (text)
        link->mtu = mtu;
}

void link_set_name(struct link *link, const char *name)
{
    if (!name || strcmp(name, link->interface.name) == 0)
        return;
    if (strlen(name) >= sizeof link->new_name || !*name || name[strcspn(name, "/: \t\r\n")] || *name == '-' ||
        *name == '.')
        say("network: %s cannot be called %s", link->interface.name, name);
    else
        strcpy(link->new_name, name);
}

/* NoCloud's file says which version it is, within `network:` or without it. */
static void read_nocloud(struct network *network, struct node root)
{
    struct node inner = node_get(root, "network"), configuration = node_is_map(inner) ? inner : root;
    const char *version = node_get_text(configuration, "version");
    if (version && strcmp(version, "1") == 0)
        network_read_v1(network, configuration);
    else if (version && strcmp(version, "2") == 0)
        network_read_v2(network, configuration);
    else
        say("network-config is left out: its version is neither 1 nor 2");
}

void network_plan(struct network *network, const struct source *source)
{
    struct document document;
    struct link *all[INTERFACES_MAX];
    if (source->network.length && document_parse(&document, "network configuration", &source->network) == 0) {
        if (source->kind == SOURCE_CONFIG_DRIVE)
            network_read_openstack(network, document_root(&document));
        else
            read_nocloud(network, document_root(&document));
        document_free(&document);
    }
    if (network->link_count || !network->interface_count)
        return;
    int count = network_links(network, NULL, NULL, all);
    for (int i = 0; i < count; i++)
        all[i]->wants_dhcp = 1;
}
