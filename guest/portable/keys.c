#include "keys.h"

#include <string.h>

#include "say.h"

enum { SAID_MAX = 20 };

static int is_one_of(const char *key, const char *const known[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(key, known[i]) == 0)
            return 1;
    return 0;
}

void keys_say_unknown(const char *where, struct node map, const char *const known[], size_t count)
{
    int said = 0;
    for (size_t i = 0; node_is_map(map) && i < node_count(map) && said < SAID_MAX; i++) {
        const char *key = node_key(map, i);
        if (!key || is_one_of(key, known, count))
            continue;
        say("%s: %s is not supported and ignored", where, key);
        said++;
    }
}
