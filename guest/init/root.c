#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "event.h"

/* Short, because overlayfs's options must fit in one page, whatever the number of layers. */
#define BASE_PATH "/base"
#define LAYER_PATH "/%d"

static struct disk disk;
static int root_is_mounted;

static void mount_partition(int number, const char *path, const char *type, unsigned long flags, const char *options)
{
    char device[64];
    disk_partition_path(&disk, number, device, sizeof device);
    mkdir(path, 0755);
    if (mount(device, path, type, flags, options) < 0)
        die("mounting %s (%s) at %s: %m", device, type, path);
}

/* They are there already, unless this is the machine's first start. */
static void make_state_directory(const char *path)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        die("making %s: %m", path);
}

static void mount_layers(char *options, size_t size)
{
    size_t used = (size_t)snprintf(options, size, "lowerdir=");
    for (int i = disk.layer_count - 1; i >= 0; i--) { /* overlayfs wants the top one first */
        char path[16];
        snprintf(path, sizeof path, LAYER_PATH, i + 1);
        mount_partition(disk.layers[i], path, "erofs", MS_RDONLY, NULL);
        used += (size_t)snprintf(options + used, size - used, "%s:", path);
    }
    snprintf(options + used, size - used, BASE_PATH ",upperdir=" STATE_PATH "/upper,workdir=" STATE_PATH "/work");
}

static void mount_all(void)
{
    static char options[4096];
    mount_partition(disk.base, BASE_PATH, "erofs", MS_RDONLY, NULL);
    mount_partition(disk.state, STATE_PATH, "ext4", MS_NOATIME, "noinit_itable");
    make_state_directory(STATE_PATH "/upper");
    make_state_directory(STATE_PATH "/work");
    mount_layers(options, sizeof options);
    mkdir(ROOT_PATH, 0755);
    if (mount("overlay", ROOT_PATH, "overlay", 0, options) < 0)
        die("mounting the merged root (%s): %m", options);
    root_is_mounted = 1;
}

void root_mount(void)
{
    disk_find(&disk);
    mount_all();
}

void root_mount_disk(const struct disk *found)
{
    disk = *found;
    mount_all();
}

void root_rescan(void)
{
    disk_rescan();
}

int root_sync(void)
{
    int state = open(STATE_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = state < 0 ? -1 : syncfs(state);
    int saved = errno;
    if (state >= 0)
        close(state);
    errno = saved;
    return result;
}

void root_unmount(void)
{
    if (!root_is_mounted)
        return;
    root_is_mounted = 0;
    /* The workload's mount namespace is gone, so nothing else holds these two. */
    if (umount2(ROOT_PATH, 0) < 0 || umount2(STATE_PATH, 0) < 0)
        log_line("unmounting the root: %m");
}

void root_release(void)
{
    root_unmount();
    for (int i = 0; i < disk.layer_count; i++) {
        char path[16];
        snprintf(path, sizeof path, LAYER_PATH, i + 1);
        if (umount2(path, 0) < 0)
            die("unmounting %s: %m", path);
    }
    if (umount2(BASE_PATH, 0) < 0)
        die("unmounting " BASE_PATH ": %m");
}
