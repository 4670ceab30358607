#include "generated.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "event.h"
#include "io.h"
#include "net.h"

#define GENERATED_PATH "/generated" /* in the initramfs */

#define HOSTS_HEAD(address) \
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" \
    "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n" address "\t"

static struct {
    const char *source, *target;
    const char *head; /* the same in all machines; one value follows and ends the file */
    size_t value;     /* its place in struct identity; where it is empty, the image's file stays */
} files[] = {
    {GENERATED_PATH "/hosts", "/etc/hosts", HOSTS_HEAD(NET_ADDRESS), offsetof(struct identity, hostname)},
    {GENERATED_PATH "/hostname", "/etc/hostname", "", offsetof(struct identity, hostname)},
    {GENERATED_PATH "/resolv.conf", "/etc/resolv.conf", "nameserver ", offsetof(struct identity, nameserver)},
    {GENERATED_PATH "/machine-id", "/etc/machine-id", "", offsetof(struct identity, machine_id)},
};

enum { FILES_COUNT = sizeof files / sizeof files[0] };

static int opened[FILES_COUNT] = {[0 ... FILES_COUNT - 1] = -1}; /* to bind them, then to rewrite them; -1: none */
static off_t sizes[FILES_COUNT];

static const char *value_of(int i, const struct identity *identity)
{
    return (const char *)identity + files[i].value;
}

void generated_leave_address(void)
{
    files[0].head = HOSTS_HEAD("127.0.1.1");
}

const char *generated_write(const struct identity *identity)
{
    char text[1024];
    mkdir(GENERATED_PATH, 0755);
    for (int i = 0; i < FILES_COUNT; i++) {
        const char *value = value_of(i, identity);
        if (!*value)
            continue;
        snprintf(text, sizeof text, "%s%s\n", files[i].head, value);
        if (write_text(files[i].source, text) < 0 || (opened[i] = open(files[i].source, O_PATH | O_CLOEXEC)) < 0)
            return "writing the generated files of /etc";
    }
    return NULL;
}

/* The initramfs cannot be named any more; /proc has names for what is open. */
static int bind_file(int source, const char *target)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", source);
    return mount(path, target, NULL, MS_BIND, NULL);
}

const char *generated_bind(void)
{
    mkdir("/etc", 0755);
    for (int i = 0; i < FILES_COUNT; i++) {
        if (opened[i] < 0 || bind_file(opened[i], files[i].target) == 0)
            continue;
        /* The image has removed the file, or has a link to nowhere in its place. */
        unlink(files[i].target);
        if (write_text(files[i].target, "") < 0 || bind_file(opened[i], files[i].target) < 0)
            return files[i].target;
    }
    return NULL;
}

int generated_open(void)
{
    for (int i = 0; i < FILES_COUNT; i++) {
        struct stat status;
        if (opened[i] < 0)
            opened[i] = open(files[i].source, O_WRONLY | O_CLOEXEC);
        if (opened[i] < 0 && errno == ENOENT)
            continue;
        if (opened[i] < 0 || fstat(opened[i], &status) < 0)
            return -1;
        sizes[i] = status.st_size;
    }
    return 0;
}

void generated_rewrite(const struct identity *identity)
{
    for (int i = 0; i < FILES_COUNT; i++) {
        char text[MACHINE_NAME_MAX + 2];
        if (opened[i] < 0)
            continue;
        size_t length = strlen(value_of(i, identity));
        memcpy(text, value_of(i, identity), length);
        text[length++] = '\n';
        off_t head = (off_t)strlen(files[i].head), size = head + (off_t)length;
        if (pwrite(opened[i], text, length, head) < 0 || (size < sizes[i] && ftruncate(opened[i], size) < 0))
            log_line("rewriting %s: %m", files[i].target);
        sizes[i] = size;
    }
}
