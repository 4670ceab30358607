/* The world that the workload sees: the merged root with the mounts and files that docker gives a container. */
#ifndef UHM_CONTAINER_H
#define UHM_CONTAINER_H

#include "run.h"

/* Makes the merged root the root of the calling process, which must be the first of its own PID and mount namespaces.
 * Returns NULL, or what could not be done (errno says why). */
const char *container_enter(const struct run *run);

#endif
