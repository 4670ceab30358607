#include "users.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "accounts.h"
#include "home.h"
#include "keys.h"
#include "passwords.h"
#include "say.h"
#include "tree.h"

#define SUDOERS "/etc/sudoers.d/90-cloud-init-users"

static const char *const known_keys[] = {
    "name", "gecos", "groups", "homedir", "primary_group", "shell", "uid", "system", "no_create_home", "no_user_group",
    "create_groups", "no_log_init", "passwd", "hashed_passwd", "plain_text_passwd", "lock_passwd", "sudo",
    "ssh_authorized_keys",
};

/* `a`, `a, b` or a list of such: makes each and has the user join it. */
static void join_groups(struct node groups, const char *user)
{
    for (size_t i = 0; i < node_count_or_one(groups); i++) {
        const char *text = node_text(node_item_or_one(groups, i));
        char *copy = text ? strdup(text) : NULL, *rest = copy;
        for (char *name; (name = strsep(&rest, ", "));)
            if (*name && accounts_make_group(name, ID_NONE, 0) >= 0)
                accounts_join(name, user);
        free(copy);
    }
}

/* `sudo` rules go where sudo looks for them, each once. */
static void allow_sudo(struct node rules, const char *user)
{
    struct file file = {.mode = 0440};
    if (!node_text(rules) && !node_is_list(rules))
        return;
    tree_read(SUDOERS, &file);
    for (size_t i = 0; i < node_count_or_one(rules); i++) {
        char line[TABLE_FIELD_MAX];
        const char *rule = node_text(node_item_or_one(rules, i));
        if (!rule || strcasecmp(rule, "false") == 0 || rule[strcspn(rule, "\r\n")] ||
            (size_t)snprintf(line, sizeof line, "%s %s\n", user, rule) >= sizeof line)
            continue;
        if (!file.content.at || !strstr(file.content.at, line))
            bytes_add(&file.content, line, strlen(line));
    }
    file.mode = 0440;
    if (file.content.at && tree_write(SUDOERS, &file) < 0)
        say("writing " SUDOERS ": %m");
    bytes_free(&file.content);
}

static int add(struct node user, const char *name)
{
    const char *uid = node_get_text(user, "uid"), *group = node_get_text(user, "primary_group");
    char *end = "";
    struct new_account wanted = {
        .name = name,
        .gecos = node_get_text(user, "gecos"),
        .home = node_get_text(user, "homedir"),
        .shell = node_get_text(user, "shell"),
        .group = group ? group : node_is_true(node_get(user, "no_user_group"), 0) ? "users" : NULL,
        .uid = uid ? strtol(uid, &end, 10) : ID_NONE,
        .is_system = node_is_true(node_get(user, "system"), 0),
    };
    if (*end || (uid && wanted.uid < 0)) {
        say("no user %s is made: uid %s is no number", name, uid);
        return -1;
    }
    return accounts_add(&wanted);
}

/* A `passwd` is for new users only; a plain one goes before a hash. Passwords are locked unless it is said otherwise, but
 * those that were there stay where nothing is said. */
static void set_password(struct node user, const char *name, int is_new)
{
    const char *hash = node_get_text(user, "hashed_passwd"), *plain = node_get_text(user, "plain_text_passwd");
    if (is_new && !hash)
        hash = node_get_text(user, "passwd");
    if (!node_is_there(user) || node_is_true(node_get(user, "lock_passwd"), 1)) {
        if (hash || plain || node_is_there(node_get(user, "lock_passwd")))
            accounts_set_hash(name, "*");
        return;
    }
    if (plain)
        passwords_set(name, plain);
    else if (hash)
        accounts_set_hash(name, hash);
}

/* One user, made where it is not there. Returns whether there is one now. */
static int apply(struct node user, const char *name)
{
    struct account account;
    int is_new = !accounts_find(name, NULL);
    keys_say_unknown(name, user, known_keys, sizeof known_keys / sizeof known_keys[0]);
    if ((is_new && add(user, name) < 0) || !accounts_find(name, &account))
        return 0;
    if (is_new && !node_is_true(node_get(user, "no_create_home"), 0))
        home_make(&account);
    join_groups(node_get(user, "groups"), name);
    set_password(user, name, is_new);
    allow_sudo(node_get(user, "sudo"), name);
    home_add_keys(&account, node_get(user, "ssh_authorized_keys"));
    return 1;
}

/* Returns whether there is such a user. */
static int apply_default(struct node config, const char *name, struct node public_keys)
{
    struct account account;
    struct node user = node_get(config, "user");
    if (!apply(node_is_map(user) ? user : (struct node){0}, name) || !accounts_find(name, &account))
        return 0;
    home_add_keys(&account, public_keys);
    home_add_keys(&account, node_get(config, "ssh_authorized_keys"));
    return 1;
}

static void make_groups(struct node groups)
{
    for (size_t i = 0; i < node_count_or_one(groups); i++) {
        struct node item = node_item_or_one(groups, i);
        const char *name = node_text(item);
        if (name)
            accounts_make_group(name, ID_NONE, 0);
        for (size_t j = 0; node_is_map(item) && j < node_count(item); j++) {
            struct node members = node_value(item, j);
            if (!(name = node_key(item, j)) || accounts_make_group(name, ID_NONE, 0) < 0)
                continue;
            for (size_t k = 0; k < node_count_or_one(members); k++) {
                const char *member = node_text(node_item_or_one(members, k));
                if (member && accounts_find(member, NULL))
                    accounts_join(name, member);
            }
        }
    }
}

void users_apply(struct node config, struct node public_keys)
{
    struct node users = node_get(config, "users"), user = node_get(config, "user");
    const char *default_name = node_text(user) ? node_text(user) : node_get_text(user, "name");
    int has_default = 0;
    if (!default_name)
        default_name = "root";
    for (size_t i = 0; i < node_count_or_one(users); i++) {
        struct node item = node_item_or_one(users, i);
        const char *name = node_text(item) ? node_text(item) : node_get_text(item, "name");
        if (!name)
            say("users, number %zu: it has no name and is ignored", i + 1);
        else if (strcmp(name, "default") == 0 && !node_is_map(item))
            has_default |= apply_default(config, default_name, public_keys);
        else
            apply(item, name);
    }
    if (!node_is_there(users))
        has_default = apply_default(config, default_name, public_keys);
    if (!has_default && (node_is_there(public_keys) || node_is_there(node_get(config, "ssh_authorized_keys"))))
        say("the ssh keys of no user in particular are nobody's: `users` does not have `default` in it");
    make_groups(node_get(config, "groups"));
    passwords_apply(config, has_default ? default_name : NULL);
}
