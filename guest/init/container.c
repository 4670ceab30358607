#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "io.h"
#include "net.h"
#include "root.h"

#define GENERATED_PATH "/generated" /* in the initramfs */

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

/* The files that are made for each machine and bound over those of the image. */
static const struct generated {
    const char *source, *target;
} generated[] = {
    {GENERATED_PATH "/hosts", "/etc/hosts"},
    {GENERATED_PATH "/hostname", "/etc/hostname"},
    {GENERATED_PATH "/resolv.conf", "/etc/resolv.conf"},
};

enum { GENERATED_COUNT = sizeof generated / sizeof generated[0] };

/* Writes the generated files into the initramfs and opens them; they are bound once /proc is there to name them by. */
static const char *generate(const struct run *run, int sources[GENERATED_COUNT])
{
    char text[1024];
    mkdir(GENERATED_PATH, 0755);
    snprintf(text, sizeof text,
             "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
             "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n" NET_ADDRESS "\t%s\n",
             run->hostname);
    int failed = write_text(generated[0].source, text) < 0;
    snprintf(text, sizeof text, "%s\n", run->hostname);
    failed |= write_text(generated[1].source, text) < 0;
    snprintf(text, sizeof text, "nameserver %s\n", run->nameserver);
    failed |= write_text(generated[2].source, text) < 0;
    for (int i = 0; i < GENERATED_COUNT; i++)
        failed |= (sources[i] = open(generated[i].source, O_PATH | O_CLOEXEC)) < 0;
    return failed ? "writing the generated files of /etc" : NULL;
}

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

static int bind_file(int source, const char *target)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", source);
    return mount(path, target, NULL, MS_BIND, NULL);
}

static const char *bind_generated(const int sources[GENERATED_COUNT])
{
    mkdir("/etc", 0755);
    for (int i = 0; i < GENERATED_COUNT; i++) {
        if (bind_file(sources[i], generated[i].target) == 0)
            continue;
        /* The image has removed the file, or has a link to nowhere in its place. */
        unlink(generated[i].target);
        if (write_text(generated[i].target, "") < 0 || bind_file(sources[i], generated[i].target) < 0)
            return generated[i].target;
    }
    return NULL;
}

const char *container_enter(const struct run *run)
{
    int sources[GENERATED_COUNT];
    const char *failed = generate(run, sources);
    umask(0);
    if (!failed)
        failed = change_root();
    if (!failed)
        failed = mount_all();
    if (!failed)
        failed = make_devices();
    umask(022);
    return failed ? failed : bind_generated(sources);
}
