#include "home.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "say.h"

enum { SKEL_FILES_MAX = 64 };

static void copy_skel_file(const struct account *account, const char *name)
{
    char from[PATH_MAX], to[PATH_MAX];
    struct file file;
    if ((size_t)snprintf(from, sizeof from, "/etc/skel/%s", name) >= sizeof from ||
        (size_t)snprintf(to, sizeof to, "%s/%s", account->home, name) >= sizeof to || tree_read(from, &file) < 0)
        return;
    file.owner = account->owner;
    if (tree_write(to, &file) < 0)
        say("writing %s: %m", to);
    bytes_free(&file.content);
}

void home_make(const struct account *account)
{
    if (tree_make_directory(account->home, 0700, account->owner) < 0) {
        say("making %s: %m", account->home);
        return;
    }
    int fd = tree_open_directory("/etc/skel");
    DIR *skel = fd < 0 ? NULL : fdopendir(fd);
    if (!skel)
        return;
    int count = 0;
    for (struct dirent *entry; count < SKEL_FILES_MAX && (entry = readdir(skel));)
        if (entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN) {
            copy_skel_file(account, entry->d_name);
            count++;
        }
    closedir(skel);
}

/* Whether one of the file's lines is this one. */
static int has_line(const struct bytes *text, const char *line, size_t length)
{
    for (const char *at = text->at; at && *at;) {
        size_t here = strcspn(at, "\n");
        if (here == length && memcmp(at, line, length) == 0)
            return 1;
        at += here + (at[here] == '\n');
    }
    return 0;
}

/* Adds the lines of a text that are not there. Returns how many those were. */
static int add_lines(struct bytes *file, const char *text)
{
    int added = 0;
    if (file->length && file->at[file->length - 1] != '\n')
        bytes_add(file, "\n", 1);
    while (text && *text) {
        size_t length = strcspn(text, "\r\n");
        if (length && !has_line(file, text, length) && bytes_add(file, text, length) == 0 &&
            bytes_add(file, "\n", 1) == 0)
            added++;
        text += length;
        text += strspn(text, "\r\n");
    }
    return added;
}

static int add_keys(struct bytes *file, struct node keys)
{
    int added = 0;
    for (size_t i = 0; node_is_map(keys) && i < node_count(keys); i++) {
        struct node value = node_value(keys, i);
        added += add_lines(file, node_text(value) ? node_text(value) : node_get_text(value, "openssh-key"));
    }
    for (size_t i = 0; !node_is_map(keys) && i < node_count_or_one(keys); i++) {
        struct node item = node_item_or_one(keys, i);
        added += add_lines(file, node_text(item) ? node_text(item) : node_get_text(item, "openssh-key"));
    }
    return added;
}

void home_add_keys(const struct account *account, struct node keys)
{
    char path[PATH_MAX];
    struct file file = {0};
    if (!node_is_there(keys))
        return;
    int home = tree_open_directory(account->home);
    if (home < 0)
        home_make(account);
    else
        close(home);
    if (snprintf(path, sizeof path, "%s/.ssh/authorized_keys", account->home) >= (int)sizeof path ||
        (tree_read(path, &file) < 0 && errno != ENOENT)) {
        say("reading %s: %s", path, strerror(errno));
        return;
    }
    if (add_keys(&file.content, keys)) {
        char directory[PATH_MAX];
        snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
        file.owner = account->owner;
        file.mode = 0600;
        if (tree_make_directory(directory, 0700, account->owner) < 0 || tree_write(path, &file) < 0)
            say("writing %s: %m", path);
    }
    bytes_free(&file.content);
}
