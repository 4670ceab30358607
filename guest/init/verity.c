#include "verity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "digits.h"

/* From linux/dm-ioctl.h, which the libc's headers do not have. */
struct dm_ioctl {
    uint32_t version[3], data_size, data_start, target_count;
    int32_t open_count;
    uint32_t flags, event_number, padding;
    uint64_t device;
    char name[128], uuid[129], data[7];
};

struct dm_target {
    uint64_t start, sectors;
    int32_t status;
    uint32_t next;
    char type[16];
};

#define DM_CREATE _IOWR(0xfd, 3, struct dm_ioctl)
#define DM_RESUME _IOWR(0xfd, 6, struct dm_ioctl)
#define DM_LOAD _IOWR(0xfd, 9, struct dm_ioctl)

enum { DM_READONLY = 1, SECTOR_BYTES = 512, BLOCK_BYTES = 4096, SHA256_DIGITS = 64 };

/* From linux/netlink.h: the kernel's events of devices. */
enum { KOBJECT_UEVENT = 15, KERNEL_GROUP = 1, EVENTS_BYTES = 1024 * 1024 };
struct netlink_address {
    uint16_t family, padding;
    uint32_t port, groups;
};

struct request {
    struct dm_ioctl head;
    struct dm_target target;
    char parameters[512];
};

int verity_parse(struct verity *verity, char *text)
{
    char *words[6];
    for (int i = 0; i < 6; i++)
        if (!(words[i] = strsep(&text, " ")))
            return -1;
    *verity = (struct verity){
        .data = (int)digits_decimal(words[0], NULL),
        .data_bytes = (uint64_t)digits_decimal(words[1], NULL),
        .hashes = (int)digits_decimal(words[2], NULL),
        .hash_offset = (uint64_t)digits_decimal(words[3], NULL),
        .root = words[4],
        .salt = words[5],
    };
    int in_table = verity->data >= 1 && verity->data <= PARTITIONS_MAX && verity->hashes >= 1 &&
                   verity->hashes <= PARTITIONS_MAX;
    int in_blocks = verity->data_bytes && verity->data_bytes % BLOCK_BYTES == 0 && verity->hash_offset % BLOCK_BYTES == 0;
    return !text && in_table && in_blocks && strlen(verity->root) == SHA256_DIGITS ? 0 : -1;
}

static int mapper(void)
{
    static int fd = -1;
    if (fd < 0)
        fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    return fd;
}

static struct request request_for(int partition)
{
    struct request request = {.head = {.version = {4}, .data_size = sizeof request, .flags = DM_READONLY}};
    request.head.data_start = sizeof request.head;
    snprintf(request.head.name, sizeof request.head.name, "uhm-%d", partition);
    return request;
}

/* Both partitions by their own paths: the config partition is its own hash partition while it is being mapped. */
static void fill_table(struct request *request, const struct disk *disk, const struct verity *verity)
{
    char data[64], hashes[64];
    disk_partition_path(disk, verity->data, data, sizeof data);
    disk_partition_path(disk, verity->hashes, hashes, sizeof hashes);
    request->head.target_count = 1;
    request->target = (struct dm_target){.sectors = verity->data_bytes / SECTOR_BYTES, .type = "verity"};
    snprintf(request->parameters, sizeof request->parameters, "1 %s %s %d %d %llu %llu sha256 %s %s", data, hashes,
             BLOCK_BYTES, BLOCK_BYTES, (unsigned long long)(verity->data_bytes / BLOCK_BYTES),
             (unsigned long long)(verity->hash_offset / BLOCK_BYTES + 1), verity->root, verity->salt);
}

const char *verity_open(struct disk *disk, const struct verity *verity)
{
    struct request create = request_for(verity->data), load = request_for(verity->data);
    struct request resume = request_for(verity->data);
    if (mapper() < 0)
        return "opening the device mapper";
    if (ioctl(mapper(), DM_CREATE, &create) < 0)
        return "making a verified device";
    fill_table(&load, disk, verity);
    if (ioctl(mapper(), DM_LOAD, &load) < 0)
        return "describing a verified device";
    if (ioctl(mapper(), DM_RESUME, &resume) < 0)
        return "starting a verified device";
    uint64_t number = create.head.device; /* major and minor as the kernel's huge_encode_dev has them */
    disk->mapped[verity->data] = (short)(1 + ((number & 0xff) | (number >> 12 & 0xfff00)));
    return NULL;
}

int verity_watch(void)
{
    struct netlink_address address = {.family = AF_NETLINK, .groups = KERNEL_GROUP};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, KOBJECT_UEVENT);
    if (fd < 0)
        return -1;
    /* Devices that come in great numbers, or reads that fail so, must not crowd out what is waited for. */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){EVENTS_BYTES}, sizeof(int));
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The value of a variable in an event, which is a sequence of strings, or NULL. */
static const char *variable(const char *event, size_t length, const char *name)
{
    size_t name_length = strlen(name);
    for (const char *next = event; next < event + length; next += strlen(next) + 1)
        if (strncmp(next, name, name_length) == 0 && next[name_length] == '=')
            return next + name_length + 1;
    return NULL;
}

int verity_failed(int watch, char *device, size_t size)
{
    char event[4096];
    ssize_t got;
    while ((got = recv(watch, event, sizeof event - 1, 0)) > 0 || (got < 0 && errno == ENOBUFS)) {
        if (got < 0)
            continue;
        event[got] = '\0';
        const char *name = variable(event, (size_t)got, "DEVNAME");
        if (!variable(event, (size_t)got, "DM_VERITY_ERR_BLOCK_NR"))
            continue;
        snprintf(device, size, "%s", name ? name : "a device");
        return 1;
    }
    return 0;
}
