/* The merged root: the disk's layers, the base and the state, put together with overlayfs (docs/guest.md, "The disk"). */
#ifndef UHM_ROOT_H
#define UHM_ROOT_H

#include "disk.h"

/* Where the merged root is mounted in init's own mount namespace. */
#define ROOT_PATH "/root"

/* Where its state partition is mounted there; the directories `upper` and `work` of it are the overlay's. */
#define STATE_PATH "/state"

/* Finds the disk's partitions and mounts the merged root at ROOT_PATH. Any failure is fatal. */
void root_mount(void);

/* Mounts the merged root of a disk that was found already. */
void root_mount_disk(const struct disk *found);

/* Has the kernel read the partition table again, as after the disk was swapped under a restored machine. */
void root_rescan(void);

/* Writes what is still in memory to the disk. Returns 0, or -1 with errno. */
int root_sync(void);

/* Takes the mounts apart, which writes the state back to the disk. Harmless when nothing is mounted. */
void root_unmount(void);

/* Does that and unmounts the layers and the base too, so that another disk can take the place of this one. */
void root_release(void);

#endif
