/* Both sides of a ready snapshot: `freeze` before it, `restore` in each machine that is made of it (docs/guest.md). */
#ifndef UHM_SNAPSHOT_H
#define UHM_SNAPSHOT_H

#include "control.h"
#include "run.h"
#include "workload.h"

/* Stops the workload, passes its last output on and writes the state out; reports `frozen` or `unfrozen`. */
void snapshot_freeze(const struct workload *workload);

/* Goes through what `restore` does and serves a request of init's own, with the workload as it was; reports `rehearsed`. */
void snapshot_rehearse(struct run *run, const struct message *message);

/* Makes the machine what the message says and lets the workload run on; reports `restored`, or leaves that to the hook. */
void snapshot_restore(const struct workload *workload, struct run *run, const struct message *message);

/* Whether only init runs. */
int snapshot_is_frozen(void);

#endif
