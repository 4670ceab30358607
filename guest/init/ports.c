#include "ports.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "event.h"
#include "io.h"
#include "portable.h"

enum { WAIT_STEP_NS = 1000 * 1000, WAIT_STEPS = 1000, WAIT_STEPS_PORTABLE = 100 };

static struct ports open_ports = {-1, -1, -1};

/* The driver's directory in sysfs has a link for each device that it drives. */
static int serial_device_exists(void)
{
    int found = 0;
    DIR *directory = opendir("/sys/bus/virtio/drivers/virtio_console");
    if (!directory)
        return 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        found |= strncmp(entry->d_name, "virtio", 6) == 0;
    closedir(directory);
    return found;
}

static int open_port(const char *device, int flags)
{
    char path[300];
    snprintf(path, sizeof path, "/dev/%s", device);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        log_line("port %s: %m", path);
    return fd;
}

static void open_named(const char *device, const char *name)
{
    if (open_ports.control < 0 && strcmp(name, "uhm.control") == 0)
        open_ports.control = open_port(device, O_RDWR | O_NONBLOCK);
    else if (open_ports.events < 0 && strcmp(name, "uhm.events") == 0)
        open_ports.events = open_port(device, O_WRONLY);
    else if (open_ports.output < 0 && strcmp(name, "uhm.output") == 0)
        open_ports.output = open_port(device, O_WRONLY);
}

/* Opens the ports that are there by now. The kernel adds ports one after the other, and names each a moment later. */
static void scan(void)
{
    DIR *directory = opendir("/sys/class/virtio-ports");
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[300], name[64];
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        if (entry->d_name[0] == '.' || read_text(path, name, sizeof name) <= 0)
            continue;
        name[strcspn(name, "\n")] = '\0';
        open_named(entry->d_name, name);
    }
    closedir(directory);
}

struct ports ports_open(void)
{
    if (!serial_device_exists())
        return open_ports;
    int steps = access(PORTABLE_PATH, F_OK) == 0 ? WAIT_STEPS_PORTABLE : WAIT_STEPS;
    for (int step = 0; step < steps; step++) {
        scan();
        if (open_ports.control >= 0 && open_ports.events >= 0 && open_ports.output >= 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_NS}, NULL);
    }
    return open_ports;
}

void ports_close(void)
{
    close(open_ports.control);
    close(open_ports.output);
    close(open_ports.events);
}
