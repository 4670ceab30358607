#include "passwords.h"

#include <stdlib.h>
#include <string.h>

#include "accounts.h"
#include "program.h"
#include "say.h"

enum { HASH_MAX = 256 };

void passwords_set(const char *user, const char *password)
{
    struct bytes plain = {.at = (char *)password, .length = strcspn(password, "\r\n")}, hash;
    if (program_filter((const char *const[]){"mkpasswd", "-m", "sha512", "-P", "0", NULL}, &plain, &hash, HASH_MAX) < 0) {
        say("no password is set for %s: it cannot be hashed", user);
        return;
    }
    hash.at[strcspn(hash.at, "\n")] = '\0';
    accounts_set_hash(user, hash.at);
    bytes_free(&hash);
}

/* As cloud-init tells them apart: crypt(5)'s prefixes, else it is the password itself. */
static int is_hash(const char *text)
{
    static const char *const prefixes[] = {"$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$y$"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0)
            return 1;
    return 0;
}

static void set(const char *user, const char *password, int is_hashed, int expires)
{
    if (strcmp(password, "R") == 0 || strcmp(password, "RANDOM") == 0) {
        say("no password is set for %s: random ones are not made, for there is nobody to be told", user);
        return;
    }
    if (is_hashed)
        accounts_set_hash(user, password);
    else
        passwords_set(user, password);
    if (expires)
        accounts_expire_password(user);
}

/* A line `user:password`. */
static void set_line(char *line, int expires)
{
    char *password = strchr(line, ':');
    if (!password)
        return;
    *password++ = '\0';
    set(line, password, is_hash(password), expires);
}

static void apply_list(struct node list, int expires)
{
    for (size_t i = 0; i < node_count_or_one(list); i++) {
        const char *text = node_text(node_item_or_one(list, i));
        char *copy = text ? strdup(text) : NULL, *rest = copy;
        for (char *line; (line = strsep(&rest, "\n"));)
            set_line(line, expires);
        free(copy);
    }
}

void passwords_apply(struct node config, const char *default_user)
{
    struct node chpasswd = node_get(config, "chpasswd"), users = node_get(chpasswd, "users");
    int expires = node_is_true(node_get(chpasswd, "expire"), 1);
    const char *password = node_get_text(config, "password");
    if (password && default_user)
        set(default_user, password, is_hash(password), expires);
    apply_list(node_is_map(chpasswd) ? node_get(chpasswd, "list") : chpasswd, expires);
    for (size_t i = 0; i < node_count(users); i++) {
        struct node item = node_item(users, i);
        const char *name = node_get_text(item, "name"), *type = node_get_text(item, "type");
        if (type && strcmp(type, "RANDOM") == 0)
            password = "RANDOM";
        else
            password = node_get_text(item, "password");
        if (name && password)
            set(name, password, !type || strcmp(type, "hash") == 0, expires);
    }
}
