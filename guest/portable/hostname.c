#include "hostname.h"

#include <string.h>

#include "say.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

int hostname_take(const char *text, char name[HOSTNAME_MAX + 1])
{
    size_t length = strcspn(text, ".");
    if (!length || length > HOSTNAME_MAX || *text == '-' || strspn(text, LETTERS) < length) {
        say("%s is no name for a machine: up to %d letters, digits and -", text, HOSTNAME_MAX);
        return -1;
    }
    memcpy(name, text, length);
    name[length] = '\0';
    return 0;
}
