/* Reading and writing whole things. */
#ifndef UHM_IO_H
#define UHM_IO_H

#include <stddef.h>
#include <sys/types.h>

/* Writes all bytes, across short writes and interruptions. Returns 0, or -1 with errno. */
int write_all(int fd, const void *bytes, size_t length);

/* Reads a file into `text` and ends it with NUL; at most `size - 1` bytes. Returns the length, or -1 with errno. */
ssize_t read_text(const char *path, char *text, size_t size);

/* Writes `text` to an existing file, or one made with mode 0644. Returns 0, or -1 with errno. */
int write_text(const char *path, const char *text);

#endif
