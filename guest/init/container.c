#include "container.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "generated.h"
#include "root.h"

static const struct {
    const char *type;
    const char *path;
    unsigned long flags;
    const char *options;
} mounts[] = {
    {"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"tmpfs", "/dev", MS_NOSUID, "mode=755,size=64m"},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m"},
    {"mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
};

static const struct {
    const char *path;
    unsigned major, minor;
} devices[] = {
    {"/dev/null", 1, 3},    {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},     {"/dev/random", 1, 8},
    {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},  {"/dev/fuse", 10, 229}, {"/dev/net/tun", 10, 200},
};

static const struct {
    const char *path, *target;
} links[] = {
    {"/dev/fd", "/proc/self/fd"},       {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
    {"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"},         {"/dev/core", "/proc/kcore"},
};

/* Moves the merged root onto the root. The initramfs cannot be left by pivot_root, which is why switch_root does the same. */
static const char *change_root(void)
{
    if (chdir(ROOT_PATH) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return "changing to the merged root";
    return NULL;
}

static const char *mount_all(void)
{
    for (size_t i = 0; i < sizeof mounts / sizeof mounts[0]; i++) {
        mkdir(mounts[i].path, 0755);
        /* A small kernel may lack cgroups or message queues; the workload sees an empty directory then. */
        if (mount(mounts[i].type, mounts[i].path, mounts[i].type, mounts[i].flags, mounts[i].options) < 0 &&
            errno != ENODEV)
            return mounts[i].path;
    }
    return NULL;
}

static const char *make_devices(void)
{
    mkdir("/dev/net", 0755);
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
        if (mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)) < 0)
            return devices[i].path;
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        if (symlink(links[i].target, links[i].path) < 0)
            return links[i].path;
    return NULL;
}

const char *container_enter(const struct run *run)
{
    const char *failed = generated_write(&run->identity);
    umask(0);
    if (!failed)
        failed = change_root();
    if (!failed)
        failed = mount_all();
    if (!failed)
        failed = make_devices();
    umask(022);
    return failed ? failed : generated_bind();
}
