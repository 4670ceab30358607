#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 16 * 1024 };

int bytes_add(struct bytes *bytes, const void *from, size_t length)
{
    char *grown = realloc(bytes->at, bytes->length + length + 1);
    if (!grown)
        return -1;
    memcpy(grown + bytes->length, from, length);
    bytes->at = grown;
    bytes->length += length;
    grown[bytes->length] = '\0';
    return 0;
}

int bytes_read(struct bytes *bytes, int fd, size_t limit)
{
    char piece[PIECE];
    *bytes = (struct bytes){0};
    for (;;) {
        ssize_t got = read(fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got >= 0 && bytes->length + (size_t)got > limit) {
            got = -1;
            errno = EFBIG;
        }
        if (got < 0 || bytes_add(bytes, piece, (size_t)got) < 0) {
            int saved = errno;
            bytes_free(bytes);
            errno = saved;
            return -1;
        }
        if (got == 0)
            return 0;
    }
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->at);
    *bytes = (struct bytes){0};
}
