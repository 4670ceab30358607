/* The machine's files: all below one directory, which no path and no link in it leads out of.
 *
 * Paths are resolved by the kernel as if that directory were / (openat2, RESOLVE_IN_ROOT); an image may hold any links it
 * likes. Files are replaced, never written into: a power cut leaves the old one or the new one, and a link in a file's
 * place is replaced, not followed. */
#ifndef CLOUD_TREE_H
#define CLOUD_TREE_H

#include <sys/types.h>

#include "bytes.h"

enum { TREE_FILE_MAX = 16 * 1024 * 1024 };

struct owner {
    uid_t uid;
    gid_t gid;
};

struct file {
    struct bytes content;
    struct owner owner;
    mode_t mode; /* permission bits */
};

/* Chooses the directory. Returns 0, or -1 with errno. */
int tree_enter(const char *directory);

/* Reads a regular file, links followed. Returns 0, or -1 with errno; with 0 the content has to be freed. */
int tree_read(const char *path, struct file *file);

/* Puts a file there, and the directories above it that are missing, which are root's. Returns 0, or -1 with errno. */
int tree_write(const char *path, const struct file *file);

/* Makes a directory, and those above it, which are root's, where they are missing. Returns 0, or -1 with errno. */
int tree_make_directory(const char *path, mode_t mode, struct owner owner);

/* Opens a directory to list it. Returns the descriptor, or -1 with errno. */
int tree_open_directory(const char *path);

/* Has all that was changed written to the disk. */
void tree_sync(void);

#endif
