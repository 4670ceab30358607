/* What a portable machine pays attention to while its workload runs: the power button, and reads that do not verify. */
#ifndef UHM_ATTEND_H
#define UHM_ATTEND_H

#include <sys/types.h>

/* Opens the buttons, and, where the disk is sealed, listens for reads that failed. A button sends the workload
 * `stop_signal`, and SIGKILL ten seconds later. */
void attend_open(int stop_signal, int sealed);

/* A descriptor that is readable when there is something to do; -1 on every other machine. */
int attend_descriptor(void);

/* Does it. A read that did not verify is fatal. */
void attend(pid_t workload);

/* Does what it is time for. Returns after how many milliseconds to look again, -1 for never. */
int attend_look(pid_t workload);

#endif
