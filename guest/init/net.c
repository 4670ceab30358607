#include "net.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <net/route.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "event.h"
#include "io.h"

static struct sockaddr address(const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(text)};
    struct sockaddr result;
    memcpy(&result, &in, sizeof result);
    return result;
}

static struct ifreq request(const char *interface)
{
    struct ifreq request = {0};
    strncpy(request.ifr_name, interface, sizeof request.ifr_name - 1);
    return request;
}

static int set_address(int fd, const char *interface, unsigned long operation, const char *text)
{
    struct ifreq change = request(interface);
    change.ifr_addr = address(text);
    return ioctl(fd, operation, &change);
}

static int set_up(int fd, const char *interface)
{
    struct ifreq change = request(interface);
    change.ifr_flags = IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, &change);
}

static int add_default_route(int fd, const char *gateway)
{
    struct rtentry route = {
        .rt_dst = address("0.0.0.0"),
        .rt_genmask = address("0.0.0.0"),
        .rt_gateway = address(gateway),
        .rt_flags = RTF_UP | RTF_GATEWAY,
    };
    return ioctl(fd, SIOCADDRT, &route);
}

void net_loopback_up(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || set_up(fd, "lo") < 0)
        log_line("bringing up lo: %m");
    if (fd >= 0)
        close(fd);
}

void net_up(void)
{
    net_loopback_up();
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq card = request("eth0");
    if (ioctl(fd, SIOCGIFINDEX, &card) == 0 &&
        (set_address(fd, "eth0", SIOCSIFADDR, NET_ADDRESS) < 0 || set_address(fd, "eth0", SIOCSIFNETMASK, NET_MASK) < 0 ||
         set_up(fd, "eth0") < 0 || add_default_route(fd, NET_GATEWAY) < 0))
        log_line("bringing up eth0: %m");
    if (fd >= 0)
        close(fd);
    net_open_to_users();
}

void net_open_to_users(void)
{
    write_text("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    write_text("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
}
