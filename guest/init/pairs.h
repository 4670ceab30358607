/* The payload of most messages: `key\0value\0` pairs. */
#ifndef UHM_PAIRS_H
#define UHM_PAIRS_H

#include <stddef.h>

struct pairs {
    char *next, *end;
};

/* Goes through a payload, whose strings stay where they are. */
struct pairs pairs_of(char *payload, size_t length);

/* Takes the next pair. Returns 1, 0 at the end, -1 where a key or its value is not terminated. */
int pairs_next(struct pairs *pairs, const char **key, char **value);

#endif
