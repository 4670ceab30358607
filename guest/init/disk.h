/* The machine's disk: which block device it is and what its partitions hold. */
#ifndef UHM_DISK_H
#define UHM_DISK_H

#include <stddef.h>

enum { LAYERS_MAX = 250, PARTITIONS_MAX = 256 }; /* as docs/guest.md has it */

struct disk {
    char name[32]; /* kernel name, such as "vda" */
    int base;      /* partition numbers */
    int state;
    int config; /* 0: the disk does not say what to run */
    int layer_count;
    int layers[LAYERS_MAX];            /* ascending: the bottom layer first */
    short mapped[PARTITIONS_MAX + 1]; /* by partition: 1 + the number of the device that shows it verified; 0: none */
};

/* Finds the disk that has the partitions uhm-base and uhm-state. Waits up to two seconds for it; fatal after that. */
void disk_find(struct disk *disk);

/* Looks once for that disk. Returns whether it is there. */
int disk_look(struct disk *disk);

/* Writes the device path of a partition, such as "/dev/vda3", or "/dev/dm-0" where it is mapped. */
void disk_partition_path(const struct disk *disk, int number, char *path, size_t size);

/* Has the kernel read the partition tables of all disks again. */
void disk_rescan(void);

#endif
