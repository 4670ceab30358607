/* Users and groups, resolved against /etc/passwd and /etc/group of the current root. */
#ifndef UHM_USER_H
#define UHM_USER_H

#include <stddef.h>
#include <sys/types.h>

enum { USER_GROUPS_MAX = 64, USER_HOME_MAX = 256 };

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS_MAX]; /* supplementary ones; the first is gid */
    int group_count;
    char home[USER_HOME_MAX];
};

/* Resolves `name-or-uid[:group-or-gid]` by docker's rules: a number needs no entry (its group is then 0, its home /);
 * a named group replaces the supplementary ones. Returns 0, or -1 with what is wrong in `wrong`. */
int user_resolve(struct user *user, const char *specification, char *wrong, size_t wrong_size);

#endif
