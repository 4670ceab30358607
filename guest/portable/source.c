#include "source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "label.h"
#include "say.h"

#define MOUNT_PATH "/cloud-init" /* in the initramfs */

static const struct {
    const char *meta_data, *user_data, *network, *vendor_data;
} names[] = {
    [SOURCE_NOCLOUD] = {"meta-data", "user-data", "network-config", "vendor-data"},
    [SOURCE_CONFIG_DRIVE] = {"openstack/latest/meta_data.json", "openstack/latest/user_data",
                             "openstack/latest/network_data.json", "openstack/latest/vendor_data.json"},
};

static void read_file(const char *directory, const char *name, struct bytes *bytes)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return;
    if (fd < 0 || bytes_read(bytes, fd, SOURCE_FILE_MAX) < 0)
        say("%s is left out: %s", name, errno == EFBIG ? "it is larger than 1 MiB" : strerror(errno));
    if (fd >= 0)
        close(fd);
}

static int has(const char *directory, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

void source_read(struct source *source, const char *directory)
{
    struct stat vendor_data;
    char path[PATH_MAX];
    source->kind = has(directory, "openstack/latest") ? SOURCE_CONFIG_DRIVE : SOURCE_NOCLOUD;
    read_file(directory, names[source->kind].meta_data, &source->meta_data);
    read_file(directory, names[source->kind].user_data, &source->user_data);
    read_file(directory, names[source->kind].network, &source->network);
    snprintf(path, sizeof path, "%s/%s", directory, names[source->kind].vendor_data);
    if (source->kind == SOURCE_NOCLOUD && stat(path, &vendor_data) == 0 && vendor_data.st_size > 0)
        say("vendor-data is not supported and ignored");
}

static int is_wanted(const char *label)
{
    return strcasecmp(label, "cidata") == 0 || strcasecmp(label, "config-2") == 0;
}

/* Reads a device that has such a label. Returns whether it has. */
static int try_device(struct source *source, const char *name)
{
    char device[NAME_MAX + 8], label[LABEL_MAX + 1];
    const char *type;
    snprintf(device, sizeof device, "/dev/%s", name);
    if (label_read(device, label, &type) < 0 || !is_wanted(label))
        return 0;
    mkdir(MOUNT_PATH, 0700);
    if (mount(device, MOUNT_PATH, type, MS_RDONLY | MS_NODEV | MS_NOEXEC | MS_NOSUID, NULL) < 0) {
        say("mounting %s, which has the label %s: %m", device, label);
        return 0;
    }
    source_read(source, MOUNT_PATH);
    if (umount2(MOUNT_PATH, 0) < 0)
        say("unmounting %s: %m", device);
    return 1;
}

void source_find(struct source *source)
{
    DIR *devices = opendir("/sys/class/block");
    if (!devices)
        return;
    for (struct dirent *entry; (entry = readdir(devices));)
        if (entry->d_name[0] != '.' && try_device(source, entry->d_name))
            break;
    closedir(devices);
}

void source_free(struct source *source)
{
    bytes_free(&source->meta_data);
    bytes_free(&source->user_data);
    bytes_free(&source->network);
}
