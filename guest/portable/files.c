#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accounts.h"
#include "encoding.h"
#include "say.h"
#include "tree.h"

/* `0644`, `644` or `0o644`. Returns -1 where it is none of them. */
static int permissions(const char *text)
{
    char *end;
    if (strncmp(text, "0o", 2) == 0)
        text += 2;
    unsigned long mode = strtoul(text, &end, 8);
    return *text && strspn(text, "01234567") == strlen(text) && mode <= 07777 ? (int)mode : -1;
}

/* Takes off what content is wrapped in: first YAML's own binary type, then what `encoding` names. Returns 0 or -1. */
static int unwrap(struct node content, const char *encoding, struct bytes *bytes)
{
    size_t length = 0;
    const char *text = node_bytes(content, &length);
    struct bytes inner = {0};
    if (node_is_binary(content) && encoding_from_base64(text, length, &inner) < 0)
        return -1;
    if (inner.at) {
        text = inner.at;
        length = inner.length;
    }
    int result = encoding_decode(encoding ? encoding : "text/plain", text ? text : "", length, bytes);
    bytes_free(&inner);
    return result;
}

/* Takes mode, owner and content; what is wrong with them is returned, NULL where nothing is. */
static const char *describe(struct node item, struct file *file)
{
    const char *mode = node_get_text(item, "permissions"), *owner = node_get_text(item, "owner");
    *file = (struct file){.mode = (mode_t)(mode ? permissions(mode) : 0644)};
    if (file->mode == (mode_t)-1)
        return "its permissions are no octal number";
    if (owner && accounts_find_owner(owner, &file->owner) < 0)
        return "its owner does not exist";
    if (unwrap(node_get(item, "content"), node_get_text(item, "encoding"), &file->content) < 0)
        return "its encoding is unknown, or its content is not so encoded, or too large";
    return NULL;
}

/* Puts what is there already in front; what is wrong is returned, NULL where nothing is. */
static const char *prepend(const char *path, struct file *file)
{
    struct file old;
    if (tree_read(path, &old) < 0)
        return errno == ENOENT ? NULL : "what is there already cannot be read, or is too large";
    int result = bytes_add(&old.content, file->content.at, file->content.length);
    bytes_free(&file->content);
    file->content = old.content;
    return result < 0 ? "out of memory" : NULL;
}

static void write_one(struct node item)
{
    struct file file = {0};
    const char *path = node_get_text(item, "path");
    const char *wrong = path && *path == '/' ? NULL : "it needs a path that begins with /";
    if (node_is_there(node_get(item, "source")) && !node_is_there(node_get(item, "content")))
        wrong = "a source elsewhere is not supported";
    if (!wrong)
        wrong = describe(item, &file);
    if (!wrong && node_is_true(node_get(item, "append"), 0))
        wrong = prepend(path, &file);
    if (wrong)
        say("write_files: %s is not written: %s", path ? path : "one", wrong);
    else if (tree_write(path, &file) < 0)
        say("write_files: %s: %m", path);
    bytes_free(&file.content);
}

void files_write(struct node files)
{
    for (size_t i = 0; i < node_count(files); i++)
        write_one(node_item(files, i));
}
