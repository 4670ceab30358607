#include "interface.h"

#include <fnmatch.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int is_wanted(const char *name, const char *const only[])
{
    char device[64];
    for (; only && *only; only++)
        if (strcmp(*only, name) == 0)
            return 1;
    snprintf(device, sizeof device, "/sys/class/net/%s/device", name);
    return !only && access(device, F_OK) == 0;
}

/* Reads the hardware address; returns whether it is Ethernet's. */
static int read_mac(int fd, struct interface *interface)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, interface->name, sizeof request.ifr_name);
    if (ioctl(fd, SIOCGIFHWADDR, &request) < 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER)
        return 0;
    const unsigned char *mac = (const unsigned char *)request.ifr_hwaddr.sa_data;
    snprintf(interface->mac, sizeof interface->mac, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
    return 1;
}

int interface_list(struct interface list[INTERFACES_MAX], const char *const only[])
{
    int count = 0, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *names = fd < 0 ? NULL : if_nameindex();
    for (struct if_nameindex *entry = names; entry && entry->if_name && count < INTERFACES_MAX; entry++) {
        snprintf(list[count].name, sizeof list[count].name, "%s", entry->if_name);
        if (is_wanted(entry->if_name, only) && read_mac(fd, &list[count]))
            count++;
    }
    if (names)
        if_freenameindex(names);
    if (fd >= 0)
        close(fd);
    return count;
}

int interface_fits(const struct interface *interface, const char *name, const char *mac)
{
    return (!mac || strcasecmp(mac, interface->mac) == 0) && (!name || fnmatch(name, interface->name, 0) == 0);
}
