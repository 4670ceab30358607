#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io.h"

/* From linux/openat2.h, which the libc's headers do not have. */
struct open_how {
    uint64_t flags, mode, resolve;
};
enum { RESOLVE_NO_MAGICLINKS = 2, RESOLVE_IN_ROOT = 16 };

static int root = -1;

int tree_enter(const char *directory)
{
    root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return root < 0 ? -1 : 0;
}

static int open_inside(const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int tree_read(const char *path, struct file *file)
{
    struct stat status = {0};
    int fd = open_inside(path, O_RDONLY | O_NONBLOCK | O_NOCTTY); /* a pipe in the file's place must not block */
    if (fd < 0)
        return -1;
    int result = fstat(fd, &status);
    if (result == 0 && !S_ISREG(status.st_mode)) {
        errno = EINVAL;
        result = -1;
    }
    if (result == 0)
        result = bytes_read(&file->content, fd, TREE_FILE_MAX);
    int saved = errno;
    close(fd);
    errno = saved;
    file->owner = (struct owner){.uid = status.st_uid, .gid = status.st_gid};
    file->mode = status.st_mode & 07777;
    return result;
}

/* Opens a part of a path, in `above`; makes it where it is missing. */
static int enter_directory(int above, const char *path, const char *name, mode_t mode, struct owner owner)
{
    int fd = open_inside(path, O_PATH | O_DIRECTORY);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    if (mkdirat(above, name, 0700) < 0 || fchownat(above, name, owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(above, name, mode, 0) < 0)
        return -1;
    return open_inside(path, O_PATH | O_DIRECTORY);
}

/* Opens a directory, with what is missing of it made. */
static int make_directories(const char *path, mode_t mode, struct owner owner)
{
    char part[PATH_MAX];
    if (strlen(path) >= sizeof part) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(part, path);
    int fd = open_inside("/", O_PATH | O_DIRECTORY);
    for (char *name = part; fd >= 0;) {
        name += strspn(name, "/");
        size_t length = strcspn(name, "/");
        if (!length)
            break;
        char after = name[length];
        int is_last = !name[length + strspn(name + length, "/")];
        name[length] = '\0';
        int next = enter_directory(fd, part, name, is_last ? mode : 0755,
                                   is_last ? owner : (struct owner){0});
        int saved = errno;
        close(fd);
        errno = saved;
        fd = next;
        name[length] = after;
        name += length;
    }
    return fd;
}

int tree_make_directory(const char *path, mode_t mode, struct owner owner)
{
    int fd = make_directories(path, mode, owner);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

/* Writes a file under a name of its own beside where it is to be, then renames it: after a power cut it is the old one or the
 * new one, never an empty one. */
static int replace(int directory, const char *name, const struct file *file)
{
    static const char temporary[] = ".cloud-init.new";
    unlinkat(directory, temporary, 0); /* of a start that ended in the middle */
    int fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int result = write_all(fd, file->content.at, file->content.length);
    if (result == 0 && (fchown(fd, file->owner.uid, file->owner.gid) < 0 || fchmod(fd, file->mode) < 0 ||
                        fsync(fd) < 0 || renameat(directory, temporary, directory, name) < 0))
        result = -1;
    int saved = errno;
    close(fd);
    if (result < 0)
        unlinkat(directory, temporary, 0);
    errno = saved;
    return result;
}

int tree_write(const char *path, const struct file *file)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        errno = EISDIR;
        return -1;
    }
    if ((size_t)snprintf(directory, sizeof directory, "/%.*s", (int)(name - path), path) >= sizeof directory) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = make_directories(directory, 0755, (struct owner){0});
    if (fd < 0)
        return -1;
    int result = replace(fd, name, file);
    int saved = errno;
    close(fd);
    errno = saved;
    return result;
}

int tree_open_directory(const char *path)
{
    return open_inside(path, O_RDONLY | O_DIRECTORY);
}

void tree_sync(void)
{
    int fd = tree_open_directory("/");
    if (fd < 0)
        return;
    syncfs(fd);
    close(fd);
}
