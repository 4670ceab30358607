#include "disk.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "event.h"
#include "io.h"

#define SYS_BLOCK "/sys/class/block"

enum { WAIT_STEP_NS = 2000 * 1000, WAIT_STEPS = 1000 };

struct partition {
    char disk[32];
    char label[32];
    int number;
};

/* Copies the value of `KEY=value` from a uevent file; returns whether there is one. */
static int uevent_value(const char *uevent, const char *key, char *value, size_t size)
{
    size_t key_length = strlen(key);
    for (const char *line = uevent; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, key_length) != 0 || line[key_length] != '=')
            continue;
        line += key_length + 1;
        snprintf(value, size, "%.*s", (int)strcspn(line, "\n"), line);
        return 1;
    }
    return 0;
}

/* Reads what the kernel says of a block device; returns whether it is a partition with a label. */
static int read_partition(const char *name, struct partition *partition)
{
    char path[300], uevent[512], number[16];
    snprintf(path, sizeof path, SYS_BLOCK "/%s/uevent", name);
    if (read_text(path, uevent, sizeof uevent) < 0 || !uevent_value(uevent, "PARTN", number, sizeof number) ||
        !uevent_value(uevent, "PARTNAME", partition->label, sizeof partition->label))
        return 0;
    partition->number = atoi(number);
    /* vda3 is on vda, nvme0n1p3 on nvme0n1. */
    size_t length = strlen(name) - strlen(number);
    if (length >= 2 && name[length - 1] == 'p' && isdigit((unsigned char)name[length - 2]))
        length--;
    snprintf(partition->disk, sizeof partition->disk, "%.*s", (int)length, name);
    return 1;
}

static int compare_numbers(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

static void take(struct disk *disk, const struct partition *partition)
{
    if (strcmp(partition->label, "uhm-base") == 0)
        disk->base = partition->number;
    else if (strcmp(partition->label, "uhm-state") == 0)
        disk->state = partition->number;
    else if (strcmp(partition->label, "uhm-layer") == 0 && disk->layer_count < LAYERS_MAX)
        disk->layers[disk->layer_count++] = partition->number;
    else if (strcmp(partition->label, "uhm-config") == 0)
        disk->config = partition->number;
}

/* Calls for each labelled partition: on the first pass picks the disk, on the second takes its partitions. */
static void scan(struct disk *disk, int pick)
{
    DIR *directory = opendir(SYS_BLOCK);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct partition partition;
        if (!read_partition(entry->d_name, &partition))
            continue;
        if (pick && strcmp(partition.label, "uhm-base") == 0 &&
            (!disk->name[0] || strcmp(partition.disk, disk->name) < 0))
            snprintf(disk->name, sizeof disk->name, "%s", partition.disk);
        else if (!pick && strcmp(partition.disk, disk->name) == 0)
            take(disk, &partition);
    }
    closedir(directory);
}

int disk_look(struct disk *disk)
{
    memset(disk, 0, sizeof *disk);
    scan(disk, 1);
    if (disk->name[0])
        scan(disk, 0);
    qsort(disk->layers, (size_t)disk->layer_count, sizeof disk->layers[0], compare_numbers);
    return disk->base && disk->state;
}

void disk_find(struct disk *disk)
{
    for (int step = 0; step < WAIT_STEPS; step++) {
        if (disk_look(disk))
            return;
        nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_NS}, NULL);
    }
    die("no disk with partitions uhm-base and uhm-state");
}

void disk_partition_path(const struct disk *disk, int number, char *path, size_t size)
{
    if (disk->mapped[number]) {
        snprintf(path, size, "/dev/dm-%d", disk->mapped[number] - 1);
        return;
    }
    const char *separator = isdigit((unsigned char)disk->name[strlen(disk->name) - 1]) ? "p" : "";
    snprintf(path, size, "/dev/%s%s%d", disk->name, separator, number);
}

void disk_rescan(void)
{
    DIR *directory = opendir("/sys/block");
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[300];
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        int fd = entry->d_name[0] == '.' ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (ioctl(fd, BLKRRPART) < 0)
            log_line("reading the partition table of %s: %m", path);
        close(fd);
    }
    closedir(directory);
}
