#include "scripts.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "say.h"
#include "tree.h"

#define DIRECTORY "/etc/uhmalguhm/first-boot.d"

void scripts_write(const char *name, const char *instance, const struct bytes *script)
{
    char path[sizeof DIRECTORY + 128];
    struct file file = {.content = *script, .mode = 0755};
    int head = snprintf(path, sizeof path, DIRECTORY "/%s-", name);
    snprintf(path + head, sizeof path - (size_t)head, "%s", instance);
    for (char *at = path + head; *at; at++)
        if (!isalnum((unsigned char)*at))
            *at = '-';
    if (tree_write(path, &file) < 0)
        say("writing %s: %m", path);
}

static int add(struct bytes *script, const char *text)
{
    return bytes_add(script, text, strlen(text));
}

/* A word as a shell reads it back: in single quotes, each of its own ones as '\''. */
static void add_word(struct bytes *script, const char *word)
{
    add(script, "'");
    for (; *word; word++) {
        size_t plain = strcspn(word, "'");
        bytes_add(script, word, plain);
        word += plain;
        if (!*word)
            break;
        add(script, "'\\''");
    }
    add(script, "' ");
}

static void add_command(struct bytes *script, struct node command)
{
    const char *line = node_text(command);
    if (line)
        add(script, line);
    for (size_t i = 0; i < node_count(command); i++) {
        const char *word = node_text(node_item(command, i));
        add_word(script, word ? word : "");
    }
    add(script, "\n");
}

void scripts_write_commands(const char *name, const char *instance, struct node commands)
{
    struct bytes script = {0};
    if (!node_count(commands) || !node_is_list(commands))
        return;
    add(&script, "#!/bin/sh\n");
    for (size_t i = 0; i < node_count(commands); i++)
        add_command(&script, node_item(commands, i));
    scripts_write(name, instance, &script);
    bytes_free(&script);
}
