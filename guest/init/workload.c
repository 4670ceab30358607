#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "container.h"
#include "event.h"
#include "firstboot.h"
#include "io.h"

/* What the child says through the status pipe when it cannot execute the command. On success the pipe just closes. A
 * code of 0 says that the first boot's scripts run now. */
struct failure {
    int code;
    char text[512];
};

struct pipes {
    int out[2], err[2], status[2];
};

static int failure_pipe; /* the child's */

__attribute__((format(printf, 2, 3), noreturn)) static void fail(int code, const char *format, ...)
{
    struct failure failure = {.code = code};
    va_list args;
    va_start(args, format);
    vsnprintf(failure.text, sizeof failure.text, format, args);
    va_end(args);
    write_all(failure_pipe, &failure, sizeof failure);
    _exit(code);
}

/* Gives the child its three standard files; as with docker, the pipes belong to the user who writes to them. */
static void set_up_files(const struct pipes *pipes, uid_t uid)
{
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || fchown(pipes->out[1], uid, (gid_t)-1) < 0 || fchown(pipes->err[1], uid, (gid_t)-1) < 0 ||
        dup2(null, 0) < 0 || dup2(pipes->out[1], 1) < 0 || dup2(pipes->err[1], 2) < 0)
        fail(EXIT_CANNOT_START, "setting up standard files: %m");
    if (null > 2)
        close(null);
}

/* Before the workload's user is looked up: a script may have added it. */
static void boot_first(const struct pipes *pipes, const struct firstboot *firstboot, struct run *run)
{
    struct failure none = {.code = 0};
    set_up_files(pipes, 0);
    write_all(failure_pipe, &none, sizeof none);
    firstboot_run(firstboot, run);
}

__attribute__((noreturn)) static void child(struct run *run, const struct pipes *pipes)
{
    struct user user;
    char wrong[256];
    failure_pipe = pipes->status[1];
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    struct firstboot firstboot = {.scripts = -1};
    if (!run->is_rehearsal)
        firstboot = firstboot_open();
    const char *failed = container_enter(run);
    if (failed)
        fail(EXIT_CANNOT_START, "setting up %s: %m", failed);
    if (firstboot.scripts >= 0)
        boot_first(pipes, &firstboot, run);
    if (user_resolve(&user, run->user, wrong, sizeof wrong) < 0)
        fail(EXIT_CANNOT_START, "%s", wrong);
    set_up_files(pipes, user.uid);
    command_set_defaults(run, &user);
    if (command_enter_directory(run->cwd) < 0)
        fail(EXIT_CANNOT_START, "working directory %s: %m", run->cwd);
    if (command_become(&user) < 0)
        fail(EXIT_CANNOT_START, "changing to user %u:%u: %m", user.uid, user.gid);
    const char *reason = command_execute(run->args, run);
    fail(command_failure_code(errno), "exec: \"%s\": %s", run->args[0], reason);
}

static void open_pipes(struct pipes *pipes)
{
    if (pipe2(pipes->out, O_CLOEXEC) < 0 || pipe2(pipes->err, O_CLOEXEC) < 0 || pipe2(pipes->status, O_CLOEXEC) < 0)
        die("making the workload's pipes: %m");
    fcntl(pipes->out[0], F_SETFL, O_NONBLOCK);
    fcntl(pipes->err[0], F_SETFL, O_NONBLOCK);
}

/* Waits for what the child says. Returns whether it says something; not once the command is executed. */
static int read_failure(int status, struct failure *failure)
{
    ssize_t got;
    while ((got = read(status, failure, sizeof *failure)) < 0 && errno == EINTR)
        ;
    return got == sizeof *failure;
}

int workload_await(struct workload *workload, char *wrong, size_t wrong_size)
{
    struct failure failure;
    int failed = read_failure(workload->status, &failure);
    close(workload->status);
    workload->status = -1;
    if (!failed)
        return 0;
    snprintf(wrong, wrong_size, "%s", failure.text);
    return failure.code;
}

int workload_start(struct workload *workload, struct run *run, char *wrong, size_t wrong_size)
{
    struct pipes pipes;
    struct failure failure;
    open_pipes(&pipes);
    long pid = syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        die("making the workload's process: %m");
    if (pid == 0)
        child(run, &pipes);
    close(pipes.out[1]);
    close(pipes.err[1]);
    close(pipes.status[1]);
    *workload = (struct workload){
        .pid = (pid_t)pid, .out = pipes.out[0], .err = pipes.err[0], .status = pipes.status[0]};
    int said = read_failure(workload->status, &failure);
    if (said && failure.code == 0)
        return 0;
    close(workload->status);
    workload->status = -1;
    if (!said)
        return 0;
    waitpid(workload->pid, NULL, 0);
    close(workload->out);
    close(workload->err);
    snprintf(wrong, wrong_size, "%s", failure.text);
    return failure.code;
}
