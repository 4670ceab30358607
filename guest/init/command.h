/* The last steps before the workload's first instruction: environment, directory, user, execve. */
#ifndef UHM_COMMAND_H
#define UHM_COMMAND_H

#include "run.h"
#include "user.h"

/* Adds PATH, HOSTNAME and HOME to the environment where they are not set, as docker does. */
void command_set_defaults(struct run *run, const struct user *user);

/* Changes to a directory, making what is missing of it. Returns 0, or -1 with errno. */
int command_enter_directory(const char *path);

/* Becomes the user, with docker's limit of open files. Returns 0, or -1 with errno. */
int command_become(const struct user *user);

/* Executes the command, looked up in PATH as execvp does. Returns only on failure: the reason, and errno. */
const char *command_execute(struct run *run);

#endif
