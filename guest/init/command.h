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

/* Executes a command, looked up in the PATH of the environment as execvp does. Returns only on failure: the reason, and
 * errno. */
const char *command_execute(char *const args[], const struct run *run);

/* Exit codes for a command that could not be started, as shells and docker have them. */
enum { EXIT_CANNOT_START = 125, EXIT_CANNOT_EXECUTE = 126, EXIT_NOT_FOUND = 127 };

/* The one of them for an errno of command_execute. */
int command_failure_code(int error);

/* The exit code that a status of waitpid stands for: 128 + the signal's number where one killed the process. */
int command_exit_code(int status);

#endif
