#include "setup.h"

#include <stdio.h>
#include <string.h>

#include "program.h"
#include "say.h"

/* Renaming comes first: it needs an interface that is down. */
static void rename_link(struct link *link)
{
    if (!*link->new_name)
        return;
    if (SETUP_IP("link", "set", "dev", link->interface.name, "name", link->new_name))
        strcpy(link->interface.name, link->new_name);
    else
        say("network: %s keeps its name: it cannot become %s", link->interface.name, link->new_name);
}

void setup_route(const char *interface, const char *to, const char *via, const char *metric, int is_on_link)
{
    const char *family = address_is_ipv6(via) ? "-6" : "-4";
    char gateway[ADDRESS_MAX];
    /* A gateway outside of all networks is reachable once a route of its own says so. */
    if (is_on_link && address_with_prefix(via, NULL, gateway) == 0)
        SETUP_IP(family, "route", "replace", gateway, "dev", interface);
    int is_done = metric ? SETUP_IP(family, "route", "replace", to, "via", via, "dev", interface, "metric", metric)
                         : SETUP_IP(family, "route", "replace", to, "via", via, "dev", interface);
    if (!is_done)
        say("network: %s: no route to %s by %s", interface, to, via);
}

int setup_address(const char *interface, const char *address)
{
    if (address_is_ipv6(address))
        return SETUP_IP("-6", "addr", "replace", address, "dev", interface);
    return SETUP_IP("-4", "addr", "replace", address, "broadcast", "+", "dev", interface);
}

static void set_up(const struct link *link)
{
    const char *name = link->interface.name;
    char number[24];
    snprintf(number, sizeof number, "%ld", link->mtu);
    if (link->mtu && !SETUP_IP("link", "set", "dev", name, "mtu", number))
        say("network: %s: the MTU is not %s", name, number);
    if (!SETUP_IP("link", "set", "dev", name, "up"))
        say("network: %s does not come up", name);
    for (int i = 0; i < link->address_count; i++)
        if (!setup_address(name, link->addresses[i]))
            say("network: %s does not get %s", name, link->addresses[i]);
    for (int i = 0; i < link->route_count; i++) {
        const struct route *route = &link->routes[i];
        snprintf(number, sizeof number, "%ld", route->metric);
        setup_route(name, route->to, route->via, route->metric == METRIC_NONE ? NULL : number, route->is_on_link);
    }
}

void setup_network(struct network *network)
{
    SETUP_IP("link", "set", "dev", "lo", "up");
    for (int i = 0; i < network->link_count; i++)
        rename_link(&network->links[i]);
    for (int i = 0; i < network->link_count; i++)
        set_up(&network->links[i]);
}
