/* What to run: the payload of the host's `run` message, parsed (docs/guest.md, "Host to guest"). */
#ifndef UHM_RUN_H
#define UHM_RUN_H

#include <stddef.h>

#include "machine.h"

enum { RUN_LIST_MAX = 4096, RUN_PORTS_MAX = 64 };

struct run {
    char *args[RUN_LIST_MAX + 1]; /* NULL-terminated, as execve wants them */
    char *env[RUN_LIST_MAX + 4];  /* likewise, with room for the defaults */
    int arg_count;
    int env_count;
    const char *cwd;
    const char *user; /* "user[:group]" */
    struct identity identity;
    int ports[RUN_PORTS_MAX];
    int port_count;
    int is_rehearsal; /* nothing of it may last */
};

/* Parses `key\0value\0` pairs in place: the strings of `run` point into `payload`, which must outlive it.
 * Returns NULL, or what is wrong with the payload. */
const char *run_parse(struct run *run, char *payload, size_t length);

/* The value of an environment variable, or NULL. */
const char *run_getenv(const struct run *run, const char *name);

#endif
