/* Lets the state of a portable disk take up the room that the disk has behind it.
 *
 * Both steps look at what is, not at what was done, so one that a power cut has interrupted is made up for at the next
 * start. */
#ifndef UHM_GROW_H
#define UHM_GROW_H

#include "disk.h"

/* Moves the end of the partition table to the end of the disk and the end of the state partition up to it. Called before
 * it is mounted. What fails is logged: the machine has less room then. */
void grow_partition(const struct disk *disk);

/* Has the mounted file system fill its partition. */
void grow_file_system(const struct disk *disk);

#endif
