/* Watches TCP ports until something in the machine listens on them. */
#ifndef UHM_LISTEN_H
#define UHM_LISTEN_H

#include "run.h"

/* Starts watching the ports of `run`. */
void listen_watch(const struct run *run);

/* Looks, if it is time to: reports `listening` for each port that has come up, and `ready` with the last of them.
 * Returns after how many milliseconds to look again, -1 for never. */
int listen_look(void);

#endif
