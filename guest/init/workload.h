/* The workload: the image's process, PID 1 of its own PID and mount namespaces. */
#ifndef UHM_WORKLOAD_H
#define UHM_WORKLOAD_H

#include <sys/types.h>

#include "run.h"

struct workload {
    pid_t pid; /* as init sees it */
    int out;   /* read ends of its output pipes, non-blocking */
    int err;
};

/* Starts the workload. Returns 0 once it was executed; else one of the codes of command.h, with the reason in `wrong`. */
int workload_start(struct workload *workload, struct run *run, char *wrong, size_t wrong_size);

#endif
