/* Bytes of known length that were allocated. */
#ifndef CLOUD_BYTES_H
#define CLOUD_BYTES_H

#include <stddef.h>

/* After the last byte there is always a NUL, which `length` does not count. `at` is NULL where there is nothing. */
struct bytes {
    char *at;
    size_t length;
};

/* Adds a copy of what is at `from`. Returns 0, or -1 where memory is short; what was there before stays. */
int bytes_add(struct bytes *bytes, const void *from, size_t length);

/* Reads a file to its end. Returns 0, or -1 with errno: EFBIG where it holds more than `limit` bytes. */
int bytes_read(struct bytes *bytes, int fd, size_t limit);

/* Lets go of them; there is nothing afterwards. */
void bytes_free(struct bytes *bytes);

#endif
