/* Busybox, which lies beside this program. */
#ifndef CLOUD_PROGRAM_H
#define CLOUD_PROGRAM_H

#include <sys/types.h>

#include "bytes.h"

/* This program's own file, and busybox's. */
const char *program_self(void);
const char *program_busybox(void);

/* Runs an applet, `args` being its NULL-terminated argv, to its end. Returns whether it succeeded. */
int program_run(const char *const args[]);

/* Starts an applet in a session of its own, silent, with `inherited` as its only descriptor beside the standard ones.
 * Returns its process, or -1 with errno. */
pid_t program_start(const char *const args[], int inherited);

/* Runs an applet that makes other bytes out of `input`. Returns 0, or -1 where it failed or made more than `limit`. */
int program_filter(const char *const args[], const struct bytes *input, struct bytes *output, size_t limit);

#endif
