#include "run.h"

#include <stdlib.h>
#include <string.h>

#include "pairs.h"

static const char *take_port(struct run *run, const char *value)
{
    int port = atoi(value);
    if (port < 1 || port > 65535)
        return "a port is not between 1 and 65535";
    if (run->port_count == RUN_PORTS_MAX)
        return "too many ports";
    run->ports[run->port_count++] = port;
    return NULL;
}

static const char *take_pair(struct run *run, const char *key, char *value)
{
    if (strcmp(key, "arg") == 0) {
        if (run->arg_count == RUN_LIST_MAX)
            return "too many arguments";
        run->args[run->arg_count++] = value;
    } else if (strcmp(key, "env") == 0) {
        if (run->env_count == RUN_LIST_MAX)
            return "too many environment variables";
        run->env[run->env_count++] = value;
    } else if (strcmp(key, "port") == 0) {
        return take_port(run, value);
    } else if (strcmp(key, "cwd") == 0 && *value) {
        run->cwd = value;
    } else if (strcmp(key, "user") == 0 && *value) {
        run->user = value;
    } else {
        identity_take(&run->identity, key, value);
    }
    return NULL;
}

const char *run_parse(struct run *run, char *payload, size_t length)
{
    memset(run, 0, sizeof *run);
    run->cwd = "/";
    run->user = "0";
    identity_set_defaults(&run->identity);
    struct pairs pairs = pairs_of(payload, length);
    const char *key;
    char *value;
    int more;
    while ((more = pairs_next(&pairs, &key, &value)) > 0) {
        const char *wrong = take_pair(run, key, value);
        if (wrong)
            return wrong;
    }
    if (more < 0)
        return "a key or its value is not terminated";
    return run->arg_count ? NULL : "no arg: there is nothing to execute";
}

const char *run_getenv(const struct run *run, const char *name)
{
    size_t length = strlen(name);
    for (int i = 0; i < run->env_count; i++)
        if (strncmp(run->env[i], name, length) == 0 && run->env[i][length] == '=')
            return run->env[i] + length + 1;
    return NULL;
}
