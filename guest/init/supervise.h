/* Init's main loop while the workload runs. */
#ifndef UHM_SUPERVISE_H
#define UHM_SUPERVISE_H

#include "run.h"
#include "workload.h"

/* Blocks the signals that the loop wants to read. Call before the workload is started, so that none is lost. */
void supervise_prepare(void);

/* Reports that the workload has started, relays output, watches ports, obeys the host and reaps processes until it
 * ends. A `restore` changes what `run` says of the machine. Returns the workload's exit code: 128 + the signal's number
 * where one killed it. */
int supervise(struct workload *workload, struct run *run, int control);

#endif
