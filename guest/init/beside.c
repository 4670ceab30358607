#include "beside.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "command.h"
#include "digits.h"
#include "event.h"
#include "pairs.h"

enum { CHECK_MS = 30 * 1000, HOOK_MS = 10 * 1000, EXIT_TOO_LONG = 124 };

/* One of each may run at a time. */
static struct beside {
    const char *event; /* reports its end */
    pid_t pid;         /* 0: it does not run */
    int64_t deadline_ms;
    int killed; /* it took too long */
} check = {.event = "checked"}, hook = {.event = "restored"};

struct command {
    char **args;
    const char *user, *cwd;
};

static int open_namespace(pid_t pid, const char *kind)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* Its own copy of `run` gets the defaults, and its own session lets all that it starts be killed with it. */
__attribute__((noreturn)) static void child(pid_t workload, struct run *run, const struct command *command)
{
    struct user user;
    char wrong[256];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    int mounts = open_namespace(workload, "mnt"); /* entered, its root is the merged one */
    if (mounts < 0 || setns(mounts, CLONE_NEWNS) < 0)
        _exit(EXIT_CANNOT_START);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
        user_resolve(&user, command->user, wrong, sizeof wrong) < 0)
        _exit(EXIT_CANNOT_START);
    command_set_defaults(run, &user);
    if (command_enter_directory(command->cwd) < 0 || command_become(&user) < 0)
        _exit(EXIT_CANNOT_START);
    command_execute(command->args, run);
    _exit(command_failure_code(errno));
}

/* Forks into the workload's PID namespace: the calling process enters it for its next children only, and goes back. */
static pid_t fork_into(pid_t workload)
{
    static int own = -1;
    if (own < 0)
        own = open_namespace(getpid(), "pid");
    int theirs = open_namespace(workload, "pid");
    pid_t pid = own < 0 || theirs < 0 || setns(theirs, CLONE_NEWPID) < 0 ? -1 : fork();
    if (pid == 0)
        return 0;
    if (pid < 0)
        log_line("starting a command beside the workload: %m");
    if (own >= 0 && setns(own, CLONE_NEWPID) < 0)
        log_line("returning to init's namespace: %m");
    if (theirs >= 0)
        close(theirs);
    return pid;
}

static void start(struct beside *beside, const struct workload *workload, struct run *run,
                  const struct command *command, int64_t timeout_ms)
{
    pid_t pid = fork_into(workload->pid);
    if (pid == 0)
        child(workload->pid, run, command);
    if (pid < 0) {
        event_number(beside->event, EXIT_CANNOT_START);
        return;
    }
    beside->pid = pid;
    beside->killed = 0;
    beside->deadline_ms = clock_ms() + timeout_ms;
}

void beside_check(const struct workload *workload, struct run *run, const struct message *message)
{
    static char *args[RUN_LIST_MAX + 1]; /* they lie in the message, of which the child has a copy */
    struct command command = {.args = args, .user = run->user, .cwd = run->cwd};
    struct pairs pairs = pairs_of(message->payload, message->length);
    int64_t timeout_ms = CHECK_MS;
    const char *key;
    char *value;
    int count = 0, more;
    if (check.pid) {
        log_line("ignored a check: another one runs");
        return;
    }
    while ((more = pairs_next(&pairs, &key, &value)) > 0) {
        if (strcmp(key, "arg") == 0 && count < RUN_LIST_MAX)
            args[count++] = value;
        else if (strcmp(key, "timeout") == 0 && *value)
            timeout_ms = digits_decimal(value, NULL);
    }
    args[count] = NULL;
    if (more < 0 || count == 0)
        event_number(check.event, EXIT_CANNOT_START);
    else
        start(&check, workload, run, &command, timeout_ms);
}

void beside_hook(const struct workload *workload, struct run *run, const char *program)
{
    char *args[] = {(char *)program, NULL};
    struct command command = {.args = args, .user = "0", .cwd = "/"};
    if (hook.pid) /* of an earlier restore; its end will be that of this one too */
        return;
    start(&hook, workload, run, &command, HOOK_MS);
}

void beside_ended(pid_t pid, int status)
{
    struct beside *beside = pid == check.pid ? &check : pid == hook.pid ? &hook : NULL;
    if (!beside)
        return;
    beside->pid = 0;
    event_number(beside->event, beside->killed ? EXIT_TOO_LONG : command_exit_code(status));
}

static int look_at(struct beside *beside)
{
    if (!beside->pid || beside->killed)
        return -1;
    int64_t left_ms = beside->deadline_ms - clock_ms();
    if (left_ms > 0)
        return left_ms < INT32_MAX ? (int)left_ms : INT32_MAX;
    beside->killed = 1;
    /* The group may not be there yet, the process always is: it was not reaped. */
    kill(beside->pid, SIGKILL);
    kill(-beside->pid, SIGKILL);
    return -1;
}

int beside_look(void)
{
    return clock_sooner(look_at(&check), look_at(&hook));
}
