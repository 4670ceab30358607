/* The workload: the image's process, PID 1 of its own PID and mount namespaces. */
#ifndef UHM_WORKLOAD_H
#define UHM_WORKLOAD_H

#include <sys/types.h>

#include "run.h"

struct workload {
    pid_t pid; /* as init sees it */
    int out;   /* read ends of its output pipes, non-blocking */
    int err;
    int status; /* tells of the command's execution while the first boot's scripts run before it; -1 once it was executed */
};

/* Starts the workload. Returns 0 once it was executed, or once the first boot's scripts run, which can take as long as
 * they like; else one of the codes of command.h, with the reason in `wrong`. */
int workload_start(struct workload *workload, struct run *run, char *wrong, size_t wrong_size);

/* Reads `status` when it is readable, and closes it. Returns 0 if the command was executed; else the code that the
 * workload ends with, with the reason. */
int workload_await(struct workload *workload, char *wrong, size_t wrong_size);

#endif
