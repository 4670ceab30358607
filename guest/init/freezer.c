#include "freezer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "event.h"
#include "io.h"

#define ROOT_GROUP "/cgroup" /* where init has the hierarchy mounted */
#define OUR_NAME "uhm.frozen"
#define OUR_GROUP ROOT_GROUP "/" OUR_NAME

enum { GROUPS_MAX = 64, FREEZE_MS = 2000, STEP_NS = 1000 * 1000, MOVE_BACK_MS = 1000, PASSES_MAX = 16 };

/* The groups that are frozen by us, ours first; their files stay open, so that to thaw takes no more than a write. */
static struct group {
    int freeze, events;
} groups[GROUPS_MAX];
static int group_count;
static int64_t move_back_ms; /* when to; 0: nothing is to be moved */
static char pids[64 * 1024]; /* a list that is longer takes another pass */

static int open_file(const char *group, const char *name, int flags)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", group, name);
    return open(path, flags | O_CLOEXEC);
}

static void close_group(const struct group *group)
{
    close(group->freeze);
    close(group->events);
}

/* Freezes a group with all below it, unless it is frozen, by us or by the workload. One that is gone is no failure. */
static const char *freeze_group(const char *path)
{
    char state = '1';
    struct group group = {.freeze = open_file(path, "cgroup.freeze", O_RDWR),
                          .events = open_file(path, "cgroup.events", O_RDONLY)};
    int taken = group.freeze >= 0 && group.events >= 0 && pread(group.freeze, &state, 1, 0) == 1 && state == '0';
    if (taken && group_count < GROUPS_MAX && pwrite(group.freeze, "1", 1, 0) == 1) {
        groups[group_count++] = group;
        return NULL;
    }
    int saved = errno, full = taken && group_count == GROUPS_MAX;
    int gone = group.freeze < 0 && saved == ENOENT;
    close_group(&group);
    errno = full ? E2BIG : saved;
    if (gone || (group.freeze >= 0 && state == '1'))
        return NULL;
    return full ? "too many control groups" : "freezing a control group";
}

static const char *make_our_group(void)
{
    mkdir(ROOT_GROUP, 0755);
    if (access(ROOT_GROUP "/cgroup.procs", F_OK) < 0 &&
        mount("cgroup2", ROOT_GROUP, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return "mounting control groups";
    if (mkdir(OUR_GROUP, 0755) < 0 && errno != EEXIST)
        return "making a control group";
    return freeze_group(OUR_GROUP); /* what is moved into it stops at once */
}

static const char *freeze_others(void)
{
    const char *failed = NULL;
    DIR *directory = opendir(ROOT_GROUP);
    if (!directory)
        return "reading control groups";
    for (struct dirent *entry; !failed && (entry = readdir(directory));) {
        char path[300];
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.' || strcmp(entry->d_name, OUR_NAME) == 0)
            continue;
        snprintf(path, sizeof path, ROOT_GROUP "/%s", entry->d_name);
        failed = freeze_group(path);
    }
    int saved = errno;
    closedir(directory);
    errno = saved;
    return failed;
}

/* Kernel threads are in init's PID namespace, all of the workload is in another. */
static int is_workload(const char *pid)
{
    static ino_t own;
    struct stat status;
    char path[32];
    if (!own && stat("/proc/self/ns/pid", &status) == 0)
        own = status.st_ino;
    snprintf(path, sizeof path, "/proc/%.10s/ns/pid", pid);
    return stat(path, &status) == 0 && status.st_ino != own;
}

/* Moves what a group lists, or what of that is the workload's. Returns how many there were, or -1 with errno. */
static int move(const char *from, const char *to, int only_workload)
{
    char path[64], *rest = pids;
    int count = 0;
    snprintf(path, sizeof path, "%s/cgroup.procs", from);
    if (read_text(path, pids, sizeof pids) < 0)
        return -1;
    int target = open_file(to, "cgroup.procs", O_WRONLY);
    for (char *pid; target >= 0 && (pid = strsep(&rest, "\n"));) {
        if (!*pid || (only_workload && !is_workload(pid)))
            continue;
        if (write(target, pid, strlen(pid)) < 0 && errno != ESRCH) { /* that one has ended */
            count = -1;
            break;
        }
        count++;
    }
    int saved = errno;
    if (target >= 0)
        close(target);
    errno = saved;
    return target < 0 ? -1 : count;
}

static const char *wait_until_frozen(int64_t deadline_ms)
{
    for (int i = 0; i < group_count; i++) {
        char events[128] = "";
        while (pread(groups[i].events, events, sizeof events - 1, 0) > 0 && !strstr(events, "frozen 1") &&
               clock_ms() < deadline_ms)
            nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
    }
    errno = ETIMEDOUT;
    return clock_ms() < deadline_ms ? NULL : "stopping the processes";
}

/* Returns whether all are back; what was forked meanwhile is found by the next pass. */
static int move_back(void)
{
    move_back_ms = 0;
    for (int pass = 0, moved = 1; moved > 0 && pass < PASSES_MAX; pass++)
        moved = move(OUR_GROUP, ROOT_GROUP, 0);
    while (group_count)
        close_group(&groups[--group_count]);
    return rmdir(OUR_GROUP) == 0;
}

const char *freezer_freeze(void)
{
    int64_t deadline_ms = clock_ms() + FREEZE_MS;
    if (move_back_ms) /* what has thawed is about to be moved back: begin anew */
        move_back();
    const char *failed = make_our_group();
    /* Until a pass finds nothing, for the processes fork, and move, as long as they run. */
    for (int moved = 1; !failed && moved;) {
        failed = freeze_others();
        if (!failed && (moved = move(ROOT_GROUP, OUR_GROUP, 1)) < 0)
            failed = "moving a process";
        if (!failed)
            failed = wait_until_frozen(deadline_ms);
    }
    if (failed) {
        int saved = errno;
        freezer_thaw();
        move_back();
        errno = saved;
    }
    return failed;
}

void freezer_thaw(void)
{
    for (int i = 0; i < group_count; i++)
        if (pwrite(groups[i].freeze, "0", 1, 0) < 0)
            log_line("thawing a control group: %m");
    move_back_ms = clock_ms() + MOVE_BACK_MS;
}

int freezer_look(void)
{
    if (!move_back_ms)
        return -1;
    int64_t left_ms = move_back_ms - clock_ms();
    if (left_ms > 0)
        return (int)left_ms;
    if (!move_back())
        move_back_ms = clock_ms() + MOVE_BACK_MS;
    return move_back_ms ? MOVE_BACK_MS : -1;
}
