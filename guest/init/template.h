/* A machine that waits for its image, and what it does to be quick when it comes. */
#ifndef UHM_TEMPLATE_H
#define UHM_TEMPLATE_H

#include "control.h"
#include "ports.h"

/* Whether this machine is a template (docs/guest.md). */
int template_is_one(void);

/* Runs what a `rehearse` message says as `run` would, on the disk that is there now, and lets go of all of it; nothing is
 * reported but `rehearsed`. A failure is fatal, as that of `run` is. */
void template_rehearse(const struct message *message, const struct ports *ports);

#endif
