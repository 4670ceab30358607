/* The machine's users, groups and passwords: /etc/passwd, /etc/group and /etc/shadow, changed in memory and written at the
 * end, so that no half of a user is ever on the disk. What goes wrong is said here. */
#ifndef CLOUD_ACCOUNTS_H
#define CLOUD_ACCOUNTS_H

#include "table.h"
#include "tree.h"

enum { ID_NONE = -1 };

struct account {
    struct owner owner;
    char home[TABLE_FIELD_MAX];
};

/* What a new user gets; a NULL is the usual. */
struct new_account {
    const char *name, *gecos, *home, *shell, *group;
    long uid; /* ID_NONE: the next that is free */
    int is_system;
};

/* Reads the tables. Returns 0, or -1 after saying why they cannot be used. */
int accounts_open(void);

/* Writes what was changed. */
void accounts_save(void);

/* Lets go of the tables. */
void accounts_close(void);

/* Finds a user. Returns whether there is one; `account` may be NULL. */
int accounts_find(const char *name, struct account *account);

/* Whether a user or group may be called that (useradd(8), and no dots in front). */
int accounts_is_name(const char *name);

/* Adds a user, who cannot log in with a password yet. Returns 0 or -1. */
int accounts_add(const struct new_account *wanted);

/* Makes a group where it is missing, with this number if that is free. Returns its number, or -1. */
long accounts_make_group(const char *name, long wanted, int is_system);

/* Makes a user a member of a group that is there. Returns 0 or -1. */
int accounts_join(const char *group, const char *user);

/* Sets a password, which is hashed already (crypt(5)). Returns 0 or -1. */
int accounts_set_hash(const char *user, const char *hash);

/* Has a user choose a new password at the next login. */
void accounts_expire_password(const char *user);

/* Finds `user[:group]`, by names or numbers. Returns 0, or -1 where there is no such user or group. */
int accounts_find_owner(const char *text, struct owner *owner);

#endif
