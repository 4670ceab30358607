#include "pairs.h"

#include <string.h>

struct pairs pairs_of(char *payload, size_t length)
{
    return (struct pairs){.next = payload, .end = payload + length};
}

int pairs_next(struct pairs *pairs, const char **key, char **value)
{
    if (pairs->next == pairs->end)
        return 0;
    char *key_end = memchr(pairs->next, '\0', (size_t)(pairs->end - pairs->next));
    char *start = key_end ? key_end + 1 : pairs->end;
    char *value_end = start < pairs->end ? memchr(start, '\0', (size_t)(pairs->end - start)) : NULL;
    if (!value_end)
        return -1;
    *key = pairs->next;
    *value = start;
    pairs->next = value_end + 1;
    return 1;
}
