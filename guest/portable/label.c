/* ECMA-119 8.4 (primary volume descriptor); Microsoft's FAT specification 1.03, "Boot Sector and BPB". */
#include "label.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR = 512, ISO_DESCRIPTOR_AT = 32768 };

static const struct {
    off_t at;          /* of the sector */
    const char *magic; /* which file system it is */
    size_t magic_at, label_at, label_length;
    const char *type;
} places[] = {
    {ISO_DESCRIPTOR_AT, "\001CD001\001", 0, 40, 32, "iso9660"},
    {0, "FAT32   ", 82, 71, 11, "vfat"},
    {0, "FAT16   ", 54, 43, 11, "vfat"},
    {0, "FAT12   ", 54, 43, 11, "vfat"},
};

static void copy(char *label, const char *from, size_t length)
{
    while (length && (from[length - 1] == ' ' || !from[length - 1]))
        length--;
    memcpy(label, from, length);
    label[length] = '\0';
}

int label_read(const char *device, char label[LABEL_MAX + 1], const char **type)
{
    char sector[SECTOR];
    int fd = open(device, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a drive without a disc must not wait for one */
    int result = -1;
    for (size_t i = 0; fd >= 0 && result < 0 && i < sizeof places / sizeof places[0]; i++) {
        size_t length = strlen(places[i].magic);
        if (pread(fd, sector, sizeof sector, places[i].at) != sizeof sector ||
            memcmp(sector + places[i].magic_at, places[i].magic, length) != 0)
            continue;
        copy(label, sector + places[i].label_at, places[i].label_length);
        *type = places[i].type;
        result = 0;
    }
    if (fd >= 0)
        close(fd);
    return result;
}
