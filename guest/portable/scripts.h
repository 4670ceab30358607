/* What user data wants executed. Init runs it, with the machine's other first-boot scripts, before the workload starts. */
#ifndef CLOUD_SCRIPTS_H
#define CLOUD_SCRIPTS_H

#include "document.h"

/* Makes a script of a list of commands, each a line for a shell or a list of words. `name` orders it among the others; init runs
 * one of each name, so `instance` becomes part of it. */
void scripts_write_commands(const char *name, const char *instance, struct node commands);

/* Keeps user data that is a script itself. */
void scripts_write(const char *name, const char *instance, const struct bytes *script);

#endif
