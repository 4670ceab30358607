#include "grow.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "event.h"
#include "gpt.h"
#include "root.h"

enum { SECTOR_BYTES = 512, ALIGNMENT_SECTORS = 2048, BLKPG_RESIZE = 3, EXT4_LOG_MAX = 6 };

/* From linux/blkpg.h and linux/fs.h, which the libc's headers do not have, and the kernel's ext4.h. */
struct blkpg_partition {
    int64_t start, length; /* bytes */
    int number;
    char names[128];
};

struct blkpg_request {
    int operation, flags, size;
    void *partition;
};

#define BLKPG_REQUEST _IO(0x12, 105)
#define EXT4_RESIZE _IOW('f', 16, uint64_t)

static int open_partition(const struct disk *disk, int number)
{
    char path[64];
    disk_partition_path(disk, number, path, sizeof path);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int open_disk(const struct disk *disk)
{
    char path[64];
    snprintf(path, sizeof path, "/dev/%s", disk->name);
    return open(path, O_RDWR | O_CLOEXEC);
}

/* Where the state may end at the latest: the sector behind the partition, or 0 where another one lies behind it. */
static uint64_t state_limit(const struct gpt *gpt, const struct gpt_entry *state, uint64_t sectors)
{
    for (int i = 0; i < GPT_ENTRIES_MAX; i++)
        if (le64toh(gpt->entries[i].first) > le64toh(state->first))
            return 0;
    uint64_t limit = gpt_last_usable(gpt, sectors) + 1;
    return limit - limit % ALIGNMENT_SECTORS;
}

static int tell_kernel(int fd, int number, const struct gpt_entry *entry)
{
    struct blkpg_partition partition = {.number = number};
    partition.start = (int64_t)le64toh(entry->first) * SECTOR_BYTES;
    partition.length = (int64_t)(le64toh(entry->last) + 1 - le64toh(entry->first)) * SECTOR_BYTES;
    struct blkpg_request request = {.operation = BLKPG_RESIZE, .size = sizeof partition, .partition = &partition};
    return ioctl(fd, BLKPG_REQUEST, &request);
}

/* Returns NULL, or what could not be done. */
static const char *grow(const struct disk *disk, int fd)
{
    static struct gpt gpt;
    uint64_t bytes;
    if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
        return "asking for the disk's size";
    uint64_t sectors = bytes / SECTOR_BYTES;
    errno = 0;
    if (gpt_read(&gpt, fd, sectors) < 0)
        return "reading the partition table";
    struct gpt_entry *state = &gpt.entries[disk->state - 1];
    uint64_t limit = state_limit(&gpt, state, sectors), end = le64toh(state->last) + 1;
    if (gpt.is_primary && limit <= end)
        return NULL;
    if (limit > end)
        state->last = htole64(limit - 1);
    if (gpt_write(&gpt, fd, sectors) < 0)
        return "writing the partition table";
    return tell_kernel(fd, disk->state, state) < 0 ? "telling the kernel of it" : NULL;
}

void grow_partition(const struct disk *disk)
{
    int fd = open_disk(disk);
    const char *failed = fd < 0 ? "opening the disk" : grow(disk, fd);
    if (failed)
        log_line("growing %s: %s: %m", disk->name, failed);
    if (fd >= 0)
        close(fd);
}

/* Reads from the superblock how many blocks the file system has, and how large they are. */
static int read_blocks(int fd, uint64_t *blocks, uint32_t *block_bytes)
{
    unsigned char super[1024];
    uint32_t low, high, log;
    if (pread(fd, super, sizeof super, 1024) != sizeof super)
        return -1;
    memcpy(&low, super + 0x04, sizeof low);
    memcpy(&log, super + 0x18, sizeof log);
    memcpy(&high, super + 0x150, sizeof high);
    *blocks = (uint64_t)le32toh(high) << 32 | le32toh(low);
    if (le32toh(log) > EXT4_LOG_MAX)
        return -1;
    *block_bytes = 1024u << le32toh(log);
    return 0;
}

/* Usually the file system is mounted so that inode tables are never zeroed, and new ones would be while this waits: 1.5 % of
 * what it grows by. So for the time it is mounted as one that zeroes them later. */
static int resize(uint64_t blocks)
{
    int fd = open(STATE_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int failed = fd < 0 || mount(NULL, STATE_PATH, NULL, MS_REMOUNT | MS_NOATIME, "init_itable") < 0 ||
                 ioctl(fd, EXT4_RESIZE, &blocks) < 0;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    mount(NULL, STATE_PATH, NULL, MS_REMOUNT | MS_NOATIME, "noinit_itable");
    errno = saved;
    return failed ? -1 : 0;
}

void grow_file_system(const struct disk *disk)
{
    uint64_t bytes, blocks;
    uint32_t block_bytes;
    int fd = open_partition(disk, disk->state);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0 || read_blocks(fd, &blocks, &block_bytes) < 0)
        log_line("asking for the state's size: %m");
    else if (bytes / block_bytes > blocks && resize(bytes / block_bytes) < 0)
        log_line("growing the state's file system: %m");
    if (fd >= 0)
        close(fd);
}
