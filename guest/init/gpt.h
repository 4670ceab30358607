/* The partition table of a disk, read to be changed: a GUID partition table (UEFI 2.10, chapter 5), 512-byte sectors. */
#ifndef UHM_GPT_H
#define UHM_GPT_H

#include <stdint.h>

enum { GPT_ENTRY_BYTES = 128, GPT_ENTRIES_MAX = 256 };

struct gpt_header { /* as it lies on the disk, little endian */
    char signature[8];
    uint32_t revision, size, crc, zero;
    uint64_t here, other, first_usable, last_usable;
    unsigned char disk[16];
    uint64_t entries_at;
    uint32_t entry_count, entry_size, entries_crc;
} __attribute__((packed));

struct gpt_entry { /* likewise */
    unsigned char type[16], id[16];
    uint64_t first, last, attributes;
    uint16_t label[36];
} __attribute__((packed));

struct gpt {
    struct gpt_header header;
    struct gpt_entry entries[GPT_ENTRIES_MAX];
    int is_primary; /* read from the front of the disk; else from its end, because the front was not valid */
};

/* Reads the table of a disk of so many sectors. Returns 0, or -1 where neither of its two copies is valid. */
int gpt_read(struct gpt *gpt, int fd, uint64_t sectors);

/* Writes both copies, for a disk of so many sectors: the one at its end first, so that one is valid at any time. Returns 0,
 * or -1 with errno. */
int gpt_write(struct gpt *gpt, int fd, uint64_t sectors);

/* The last sector that a partition may have on a disk of so many. */
uint64_t gpt_last_usable(const struct gpt *gpt, uint64_t sectors);

#endif
