/* Partitions that prove what they are: the kernel's dm-verity, set up without a tool (docs/guest.md, "Sealed disks"). */
#ifndef UHM_VERITY_H
#define UHM_VERITY_H

#include <stdint.h>

#include "disk.h"

struct verity {
    int data;             /* partition that is read */
    uint64_t data_bytes;  /* of it, from its beginning */
    int hashes;           /* partition that holds its hash tree; may be the same */
    uint64_t hash_offset; /* bytes: where the superblock lies, which the tree follows */
    const char *root;     /* hash of the tree's root, hexadecimal */
    const char *salt;     /* hexadecimal, or "-" */
};

/* Reads `<data partition> <data bytes> <hash partition> <hash offset> <root> <salt>`; the text is cut up. Returns 0, or
 * -1 where it says something else. */
int verity_parse(struct verity *verity, char *text);

/* Makes the device that shows the data verified, and maps the partition to it in `disk`. What does not match its hash
 * is not read but answered with EIO. Returns NULL, or what could not be done, with errno. */
const char *verity_open(struct disk *disk, const struct verity *verity);

/* From now on tells of reads that did not verify, by becoming readable. Returns a descriptor, or -1. */
int verity_watch(void);

/* Reads what has come there. Returns whether a read did not verify; then `device` says of which device. */
int verity_failed(int watch, char *device, size_t size);

#endif
