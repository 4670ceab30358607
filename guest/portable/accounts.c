#include "accounts.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "say.h"

enum { PASSWD_HASH = 1, PASSWD_UID = 2, PASSWD_GID = 3, PASSWD_HOME = 5 };
enum { GROUP_GID = 2, GROUP_MEMBERS = 3 };
enum { SHADOW_HASH = 1, SHADOW_CHANGED = 2 };

enum { NAME_MAX_LENGTH = 32, ENTRIES_MAX = 2000 };
enum { ID_FIRST = 1000, ID_LAST = 59999, SYSTEM_ID_FIRST = 100, SYSTEM_ID_LAST = 999 };
#define ID_LARGEST 4294967294L /* the next one means "none" to the kernel */

/* No password fits it. An exclamation mark would lock the user's keys out too, where sshd does without PAM. */
#define NO_PASSWORD "*"

static struct table passwd, group, shadow;

int accounts_open(void)
{
    if (table_read(&passwd, "/etc/passwd", 0644) == 0 && table_read(&group, "/etc/group", 0644) == 0 &&
        table_read(&shadow, "/etc/shadow", 0640) == 0)
        return 0;
    say("users are left as they are: reading /etc/passwd, /etc/group and /etc/shadow: %s", strerror(errno));
    accounts_close();
    return -1;
}

void accounts_save(void)
{
    struct table *const tables[] = {&group, &shadow, &passwd}; /* a user is there once all of it is */
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (table_write(tables[i]) < 0) {
            say("writing %s: %s", tables[i]->path, strerror(errno));
            return;
        }
    }
}

void accounts_close(void)
{
    table_free(&passwd);
    table_free(&group);
    table_free(&shadow);
}

int accounts_find(const char *name, struct account *account)
{
    ssize_t line = table_find(&passwd, name);
    if (line < 0 || !account)
        return line >= 0;
    long uid = table_number(&passwd, (size_t)line, PASSWD_UID), gid = table_number(&passwd, (size_t)line, PASSWD_GID);
    if (uid < 0 || uid > ID_LARGEST || gid < 0 || gid > ID_LARGEST)
        return 0;
    account->owner = (struct owner){.uid = (uid_t)uid, .gid = (gid_t)gid};
    return table_field(&passwd, (size_t)line, PASSWD_HOME, account->home) == 0;
}

int accounts_is_name(const char *name)
{
    size_t length = strlen(name);
    if (!length || length > NAME_MAX_LENGTH || !(isalpha((unsigned char)*name) || *name == '_'))
        return 0;
    for (const char *at = name; *at; at++)
        if (!isalnum((unsigned char)*at) && !strchr("_-.", *at) && !(*at == '$' && !at[1]))
            return 0;
    return 1;
}

static int is_free(const struct table *table, int field, long id)
{
    for (size_t i = 0; i < table->count; i++)
        if (table_number(table, i, field) == id)
            return 0;
    return 1;
}

/* The one after the highest in use, as useradd does. */
static long next_free(const struct table *table, int field, int is_system)
{
    long next = is_system ? SYSTEM_ID_FIRST : ID_FIRST, last = is_system ? SYSTEM_ID_LAST : ID_LAST;
    for (size_t i = 0; i < table->count; i++) {
        long id = table_number(table, i, field);
        if (id >= next && id <= last)
            next = id + 1;
    }
    return next <= last ? next : -1;
}

long accounts_make_group(const char *name, long wanted, int is_system)
{
    ssize_t line = table_find(&group, name);
    if (line >= 0)
        return table_number(&group, (size_t)line, GROUP_GID);
    long gid = wanted >= 0 && is_free(&group, GROUP_GID, wanted) ? wanted : next_free(&group, GROUP_GID, is_system);
    if (!accounts_is_name(name) || gid < 0 || group.count >= ENTRIES_MAX ||
        table_add(&group, "%s:x:%ld:", name, gid) < 0) {
        say("no group %s is made: the name is not one, or there are too many", name);
        return -1;
    }
    return gid;
}

static int is_member(const char *members, const char *user)
{
    size_t length = strlen(user);
    for (const char *at = members; (at = strstr(at, user)); at += length)
        if ((at == members || at[-1] == ',') && (at[length] == ',' || !at[length]))
            return 1;
    return 0;
}

int accounts_join(const char *name, const char *user)
{
    char members[TABLE_FIELD_MAX], more[TABLE_FIELD_MAX + NAME_MAX_LENGTH + 2];
    ssize_t line = table_find(&group, name);
    if (line < 0 || table_field(&group, (size_t)line, GROUP_MEMBERS, members) < 0)
        return -1;
    if (is_member(members, user))
        return 0;
    snprintf(more, sizeof more, "%s%s%s", members, *members ? "," : "", user);
    return table_set(&group, (size_t)line, GROUP_MEMBERS, more);
}

/* A user's line in shadow; one is made where it is missing. */
static ssize_t shadow_line(const char *user)
{
    ssize_t line = table_find(&shadow, user);
    if (line >= 0)
        return line;
    if (table_add(&shadow, "%s:" NO_PASSWORD ":%ld:0:99999:7:::", user, (long)(time(NULL) / 86400)) < 0)
        return -1;
    return (ssize_t)shadow.count - 1;
}

/* Chooses a user's numbers, which are the same where that can be. Returns 0, or -1 after saying what is in the way. */
static int choose_ids(const struct new_account *wanted, long *uid, long *gid)
{
    *uid = wanted->uid == ID_NONE ? next_free(&passwd, PASSWD_UID, wanted->is_system) : wanted->uid;
    if (*uid < 0 || *uid > ID_LARGEST || !is_free(&passwd, PASSWD_UID, *uid) || passwd.count >= ENTRIES_MAX) {
        say("no user %s is made: the uid %ld is taken or none, or there are too many users", wanted->name, *uid);
        return -1;
    }
    *gid = accounts_make_group(wanted->group ? wanted->group : wanted->name, wanted->group ? ID_NONE : *uid,
                               wanted->is_system);
    return *gid < 0 ? -1 : 0;
}

int accounts_add(const struct new_account *wanted)
{
    char home[NAME_MAX_LENGTH + 8];
    long uid, gid;
    if (!accounts_is_name(wanted->name)) {
        say("no user %s is made: a name is up to 32 letters, digits, _ . or -, the first a letter or _", wanted->name);
        return -1;
    }
    snprintf(home, sizeof home, "/home/%s", wanted->name);
    const char *gecos = wanted->gecos ? wanted->gecos : "";
    const char *at = wanted->home ? wanted->home : home;
    const char *shell = wanted->shell ? wanted->shell : "/bin/sh";
    if (!table_may_hold(gecos) || !table_may_hold(at) || !table_may_hold(shell) || *at != '/') {
        say("no user %s is made: gecos, homedir or shell has a colon or a line's end, or homedir no leading /", wanted->name);
        return -1;
    }
    if (choose_ids(wanted, &uid, &gid) < 0)
        return -1;
    return table_add(&passwd, "%s:x:%ld:%ld:%s:%s:%s", wanted->name, uid, gid, gecos, at, shell) < 0 ||
                   shadow_line(wanted->name) < 0
               ? -1
               : 0;
}

int accounts_set_hash(const char *user, const char *hash)
{
    ssize_t line = table_find(&passwd, user), secret = line < 0 ? -1 : shadow_line(user);
    if (secret < 0 || !table_may_hold(hash) || table_set(&passwd, (size_t)line, PASSWD_HASH, "x") < 0 ||
        table_set(&shadow, (size_t)secret, SHADOW_HASH, hash) < 0) {
        say("no password is set for %s: there is no such user, or it is not one", user);
        return -1;
    }
    return 0;
}

void accounts_expire_password(const char *user)
{
    ssize_t line = table_find(&shadow, user);
    if (line >= 0)
        table_set(&shadow, (size_t)line, SHADOW_CHANGED, "0");
}

/* A number, or that of a name. */
static long find_id(const struct table *table, int field, const char *text)
{
    char *end;
    ssize_t line = table_find(table, text);
    if (line >= 0)
        return table_number(table, (size_t)line, field);
    long id = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : -1;
    return id >= 0 && id <= ID_LARGEST && !*end ? id : -1;
}

int accounts_find_owner(const char *text, struct owner *owner)
{
    char user[2 * NAME_MAX_LENGTH + 4];
    if (strlen(text) >= sizeof user)
        return -1;
    strcpy(user, text);
    char *name = strchr(user, ':');
    if (name)
        *name++ = '\0';
    long uid = find_id(&passwd, PASSWD_UID, user), gid = 0;
    if (name && *name)
        gid = find_id(&group, GROUP_GID, name);
    else if (table_find(&passwd, user) >= 0)
        gid = table_number(&passwd, (size_t)table_find(&passwd, user), PASSWD_GID);
    if (uid < 0 || gid < 0)
        return -1;
    *owner = (struct owner){.uid = (uid_t)uid, .gid = (gid_t)gid};
    return 0;
}
