/* Commands beside the workload, in its namespaces and with its settings: the host's `check` and the image's hook. */
#ifndef UHM_BESIDE_H
#define UHM_BESIDE_H

#include <sys/types.h>

#include "control.h"
#include "run.h"
#include "workload.h"

/* Starts the command of a `check` message; `checked` reports its end. Ignored while another one runs. */
void beside_check(const struct workload *workload, struct run *run, const struct message *message);

/* Starts a program as root, without arguments, for at most ten seconds; `restored` reports its end. */
void beside_hook(const struct workload *workload, struct run *run, const char *program);

/* Takes note of a child that was reaped; reports its exit code if it was one of these. */
void beside_ended(pid_t pid, int status);

/* Kills what has taken too long. Returns after how many milliseconds to look again, -1 for never. */
int beside_look(void);

#endif
