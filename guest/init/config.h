/* What a portable disk says of itself: its partition `uhm-config` (docs/guest.md, "A disk that boots by itself"). */
#ifndef UHM_CONFIG_H
#define UHM_CONFIG_H

#include "disk.h"
#include "run.h"

struct config {
    int stop_signal; /* what asks the workload to end */
    int sealed;      /* whether nothing but verified data is read from the disk, save its state */
};

/* Reads the partition into `run`, whose strings point into memory of this module. Where the kernel's command line holds a
 * seal, verifies it first, and from then on the base and the layers too. Any failure is fatal. */
void config_read(struct config *config, struct run *run, struct disk *disk);

#endif
