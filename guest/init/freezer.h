/* Stops and continues the workload's processes, with the freezer of control groups, version 2.
 *
 * The workload starts in the root group, which cannot be frozen. So its processes are moved to a group of ours for the
 * time; the groups that the workload has made itself are frozen where they are. */
#ifndef UHM_FREEZER_H
#define UHM_FREEZER_H

/* Stops all processes that are not of init's PID namespace. Returns NULL once none runs; or what could not be done, with
 * errno, and then all of them run on. */
const char *freezer_freeze(void);

/* Lets them run on: one write for each group. */
void freezer_thaw(void);

/* Some time after that, moves the processes back to where they were. Returns after how many milliseconds to look again,
 * -1 for never. */
int freezer_look(void);

#endif
