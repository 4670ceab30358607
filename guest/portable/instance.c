#include "instance.h"

#include <string.h>

#include "accounts.h"
#include "encoding.h"
#include "files.h"
#include "hostname.h"
#include "keys.h"
#include "say.h"
#include "scripts.h"
#include "tree.h"
#include "users.h"

#define DONE_PATH "/var/lib/uhmalguhm/instance-id"

static const char *const known_keys[] = {
    "hostname", "fqdn", "preserve_hostname", "manage_etc_hosts", "user", "users", "groups", "password", "chpasswd",
    "ssh_authorized_keys", "write_files", "runcmd", "bootcmd",
};

static int starts_with(const struct bytes *text, const char *start)
{
    return text->length >= strlen(start) && memcmp(text->at, start, strlen(start)) == 0;
}

static void parse_config(struct instance *instance, const struct bytes *text)
{
    instance->has_user_data = document_parse(&instance->user_data, "user-data", text) == 0;
    if (!instance->has_user_data)
        return;
    instance->config = document_root(&instance->user_data);
    if (node_is_there(instance->config) && !node_is_map(instance->config))
        say("user-data is left out: it is not a map of keys");
    else
        keys_say_unknown("user-data", instance->config, known_keys, sizeof known_keys / sizeof known_keys[0]);
}

/* Takes off gzip or base64 that lies around user data as a whole. Returns 0, or -1 where there is none. */
static int unwrap(struct bytes *text)
{
    struct bytes decoded;
    if (encoding_is_gzip(text))
        return encoding_unpack(text);
    if (encoding_from_base64(text->at, text->length, &decoded) < 0)
        return -1;
    bytes_free(text);
    *text = decoded;
    return 0;
}

static void parse_user_data(struct instance *instance, const struct bytes *user_data)
{
    enum { WRAPPINGS_MAX = 2 };
    struct bytes text = {0};
    if (!user_data->length || bytes_add(&text, user_data->at, user_data->length) < 0)
        return;
    for (int i = 0; i < WRAPPINGS_MAX && text.at[0] != '#' && unwrap(&text) == 0 && text.length; i++)
        continue;
    if (starts_with(&text, "#!")) {
        instance->script = text;
        return;
    }
    if (starts_with(&text, "#cloud-config"))
        parse_config(instance, &text);
    else if (encoding_is_gzip(&text))
        say("user-data is left out: it is damaged gzip, or holds too much");
    else if (text.length)
        say("user-data is left out: it begins neither with #cloud-config nor with #!; other kinds are not supported");
    bytes_free(&text);
}

void instance_parse(struct instance *instance, const struct source *source)
{
    *instance = (struct instance){0};
    instance->has_meta_data = source->meta_data.length &&
                              document_parse(&instance->meta_data, "meta-data", &source->meta_data) == 0;
    if (instance->has_meta_data)
        instance->meta = document_root(&instance->meta_data);
    parse_user_data(instance, &source->user_data);
}

void instance_free(struct instance *instance)
{
    if (instance->has_meta_data)
        document_free(&instance->meta_data);
    if (instance->has_user_data)
        document_free(&instance->user_data);
    bytes_free(&instance->script);
}

const char *instance_hostname(const struct instance *instance)
{
    static const char *const meta_keys[] = {"local-hostname", "hostname", "name"};
    static char name[HOSTNAME_MAX + 1];
    const char *found = node_get_text(instance->config, "hostname");
    if (node_is_true(node_get(instance->config, "preserve_hostname"), 0))
        return NULL;
    if (!found)
        found = node_get_text(instance->config, "fqdn");
    for (size_t i = 0; !found && i < sizeof meta_keys / sizeof meta_keys[0]; i++)
        found = node_get_text(instance->meta, meta_keys[i]);
    return found && hostname_take(found, name) == 0 ? name : NULL;
}

/* NoCloud has it as `instance-id`, a config drive as `uuid`; one that says nothing is always the same. */
static const char *id_of(const struct instance *instance)
{
    const char *id = node_get_text(instance->meta, "instance-id");
    if (!id)
        id = node_get_text(instance->meta, "uuid");
    return id ? id : "nocloud";
}

static int is_done(const char *id)
{
    struct file file;
    if (tree_read(DONE_PATH, &file) < 0)
        return 0;
    int is_same = file.content.length == strlen(id) + 1 && strncmp(file.content.at, id, strlen(id)) == 0;
    bytes_free(&file.content);
    return is_same;
}

/* The marker gets there after everything else has: a power cut before it has all of it done again, which harms nothing. */
static void mark_done(const char *id)
{
    struct file file = {.mode = 0644};
    tree_sync();
    if (bytes_add(&file.content, id, strlen(id)) < 0 || bytes_add(&file.content, "\n", 1) < 0 ||
        tree_write(DONE_PATH, &file) < 0)
        say("writing " DONE_PATH ": %m");
    bytes_free(&file.content);
}

void instance_apply(const struct instance *instance)
{
    const char *id = id_of(instance);
    struct node public_keys = node_get(instance->meta, "public-keys");
    if (is_done(id))
        return;
    if (!node_is_there(public_keys))
        public_keys = node_get(instance->meta, "public_keys");
    if (accounts_open() == 0) {
        users_apply(instance->config, public_keys);
        accounts_save(); /* before files: one of them may be a table of users itself */
        files_write(node_get(instance->config, "write_files"));
        accounts_close();
    }
    scripts_write_commands("50-cloud-init-bootcmd", id, node_get(instance->config, "bootcmd"));
    scripts_write_commands("60-cloud-init-runcmd", id, node_get(instance->config, "runcmd"));
    if (instance->script.length)
        scripts_write("70-cloud-init-user-data", id, &instance->script);
    mark_done(id);
}
