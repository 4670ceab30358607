#include "user.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS_MAX = 7, LINE_BYTES = 8192, NAME_BYTES = 128 };

/* Splits a line of passwd or group at its colons, in place; returns the number of fields. */
static int split(char *line, char *fields[FIELDS_MAX])
{
    int count = 0;
    line[strcspn(line, "\n")] = '\0';
    while (line && count < FIELDS_MAX)
        fields[count++] = strsep(&line, ":");
    return count;
}

/* A whole decimal number, or -1. */
static long number(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' ? value : -1;
}

static int matches(char *fields[FIELDS_MAX], const char *wanted)
{
    long id = number(wanted);
    return strcmp(fields[0], wanted) == 0 || (id >= 0 && number(fields[2]) == id);
}

/* Finds the user; leaves its name in `name` for the search of groups. Returns whether there is an entry. */
static int find_user(struct user *user, const char *wanted, char name[NAME_BYTES])
{
    char line[LINE_BYTES], *fields[FIELDS_MAX];
    int found = 0;
    FILE *passwd = fopen("/etc/passwd", "re");
    while (passwd && !found && fgets(line, sizeof line, passwd)) {
        if (split(line, fields) < 6 || !matches(fields, wanted))
            continue;
        found = 1;
        user->uid = (uid_t)atol(fields[2]);
        user->gid = (gid_t)atol(fields[3]);
        snprintf(user->home, sizeof user->home, "%s", *fields[5] ? fields[5] : "/");
        snprintf(name, NAME_BYTES, "%s", fields[0]);
    }
    if (passwd)
        fclose(passwd);
    return found;
}

static int is_member(char *members, const char *name)
{
    for (char *member; (member = strsep(&members, ","));)
        if (strcmp(member, name) == 0)
            return 1;
    return 0;
}

/* Adds the groups that list `name` as a member. */
static void add_groups(struct user *user, const char *name)
{
    char line[LINE_BYTES], *fields[FIELDS_MAX];
    FILE *group = fopen("/etc/group", "re");
    while (group && user->group_count < USER_GROUPS_MAX && fgets(line, sizeof line, group)) {
        if (split(line, fields) < 4 || !is_member(fields[3], name))
            continue;
        gid_t gid = (gid_t)atol(fields[2]);
        if (gid != user->gid)
            user->groups[user->group_count++] = gid;
    }
    if (group)
        fclose(group);
}

/* Finds a group by name or number; returns whether it could be. */
static int find_group(const char *wanted, gid_t *gid)
{
    char line[LINE_BYTES], *fields[FIELDS_MAX];
    int found = number(wanted) >= 0;
    *gid = (gid_t)number(wanted);
    FILE *group = fopen("/etc/group", "re");
    while (group && fgets(line, sizeof line, group)) {
        if (split(line, fields) < 3 || !matches(fields, wanted))
            continue;
        *gid = (gid_t)atol(fields[2]);
        found = 1;
        break;
    }
    if (group)
        fclose(group);
    return found;
}

int user_resolve(struct user *user, const char *specification, char *wrong, size_t wrong_size)
{
    char wanted[NAME_BYTES], name[NAME_BYTES] = "";
    snprintf(wanted, sizeof wanted, "%s", specification);
    char *group = strchr(wanted, ':');
    if (group)
        *group++ = '\0';
    *user = (struct user){.home = "/"};
    const char *wanted_user = *wanted ? wanted : "0";
    if (!find_user(user, wanted_user, name)) {
        if (number(wanted_user) < 0) {
            snprintf(wrong, wrong_size, "unable to find user %s: no matching entries in passwd file", wanted_user);
            return -1;
        }
        user->uid = (uid_t)number(wanted_user);
    }
    if (group && *group && !find_group(group, &user->gid)) {
        snprintf(wrong, wrong_size, "unable to find group %s: no matching entries in group file", group);
        return -1;
    }
    user->groups[user->group_count++] = user->gid;
    if (!(group && *group) && *name)
        add_groups(user, name);
    return 0;
}
