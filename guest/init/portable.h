/* A machine that nobody tells anything: its disk says what to run, and it boots by itself (docs/guest.md). */
#ifndef UHM_PORTABLE_H
#define UHM_PORTABLE_H

#include "run.h"

#define PORTABLE_PATH "/portable" /* comes with the loaders of the boot partition, never with uhm's own starts */

/* Where this is such a machine, readies it up to the merged root and returns 1 with what to run; else returns 0 and has
 * done nothing that matters. Any failure is fatal. */
int portable_prepare(struct run *run);

/* Ends what runs beside the workload, so that the root can be unmounted. */
void portable_end(void);

#endif
