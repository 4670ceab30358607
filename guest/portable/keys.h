/* The keys that are understood. */
#ifndef CLOUD_KEYS_H
#define CLOUD_KEYS_H

#include "document.h"

/* Says which keys of a map are none of these, so that nobody waits for what will not happen; `where` is what the map is. */
void keys_say_unknown(const char *where, struct node map, const char *const known[], size_t count);

#endif
