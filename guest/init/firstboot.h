/* What an image does once on each machine that is made of it: the executables in /etc/uhmalguhm/first-boot.d, in the
 * order of their names, before the workload starts (docs/guest.md, "First boot"). Those that were run are known by files
 * on the state partition, so a machine that is started again, or restored from a snapshot, does not repeat them. */
#ifndef UHM_FIRSTBOOT_H
#define UHM_FIRSTBOOT_H

#include "run.h"

struct firstboot {
    int scripts; /* their directory in the merged root; -1: there is none, and nothing to do */
    int done;    /* the directory of those that were run */
};

/* Looks for them. Called where the merged root is at ROOT_PATH. */
struct firstboot firstboot_open(void);

/* Runs those that were not run yet, one after the other, as root in `/`; their output is that of the calling process.
 * Called in the workload's namespaces. One that fails is reported there, and the next one runs. */
void firstboot_run(const struct firstboot *firstboot, struct run *run);

#endif
