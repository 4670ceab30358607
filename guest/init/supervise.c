#include "supervise.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attend.h"
#include "beside.h"
#include "clock.h"
#include "command.h"
#include "control.h"
#include "event.h"
#include "freezer.h"
#include "listen.h"
#include "output.h"
#include "snapshot.h"

enum { EVENTS_AT_ONCE = 8 };

static int children = -1; /* a signalfd that is readable when a child has ended */
static int poller = -1;

void supervise_prepare(void)
{
    if (children >= 0) /* from a rehearsal */
        return;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    children = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (children < 0)
        die("signalfd: %m");
}

static void poll_add(int fd, unsigned events)
{
    struct epoll_event wanted = {.events = events, .data.fd = fd};
    if (fd >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted) < 0)
        die("epoll: %m");
}

/* Reaps all that has ended. Returns the workload's exit code once it has, else -1. */
static int reap(pid_t workload)
{
    struct signalfd_siginfo ignored;
    int code = -1, status;
    while (read(children, &ignored, sizeof ignored) > 0)
        ;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == workload)
            code = command_exit_code(status);
        else
            beside_ended(pid, status);
    return code;
}

static void send_signal(pid_t workload, int number)
{
    if (kill(workload, number) < 0)
        log_line("signal %d: %m", number);
}

static void obey(const struct workload *workload, struct run *run, const struct message *message)
{
    if (strcmp(message->verb, "restore") == 0)
        snapshot_restore(workload, run, message);
    else if (strcmp(message->verb, "rehearse") == 0)
        snapshot_rehearse(run, message);
    else if (strcmp(message->verb, "check") == 0 && !snapshot_is_frozen())
        beside_check(workload, run, message);
    else if (strcmp(message->verb, "freeze") == 0)
        snapshot_freeze(workload);
    else if (strcmp(message->verb, "signal") == 0)
        send_signal(workload->pid, atoi(message->payload));
    else if (strcmp(message->verb, "stop") == 0)
        send_signal(workload->pid, SIGKILL);
    else
        log_line("ignored a control message: %s", message->verb);
}

static void obey_all(int control, const struct workload *workload, struct run *run)
{
    struct message message;
    control_read(control);
    while (control_next(&message))
        obey(workload, run, &message);
}

/* Does what it is time for. Returns after how many milliseconds to do so again, -1 for never. */
static int look(pid_t workload)
{
    int sooner = clock_sooner(clock_sooner(beside_look(), freezer_look()), attend_look(workload));
    return snapshot_is_frozen() ? sooner : clock_sooner(sooner, listen_look());
}

static void relay(const struct workload *workload, int fd)
{
    if (output_relay(fd, fd == workload->out ? STDOUT_STREAM : STDERR_STREAM) == RELAYED_END)
        epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
}

static void announce(const struct workload *workload, const struct run *run)
{
    event("started", "%d", workload->pid);
    listen_watch(run);
}

/* The first boot's scripts are done. A command that cannot be executed ends, as one that was does. */
static void await(struct workload *workload, const struct run *run)
{
    char wrong[512];
    epoll_ctl(poller, EPOLL_CTL_DEL, workload->status, NULL);
    if (workload_await(workload, wrong, sizeof wrong))
        event("error", "%s", wrong);
    else
        announce(workload, run);
}

static void let_go(const struct workload *workload)
{
    close(poller);
    close(workload->out);
    close(workload->err);
}

int supervise(struct workload *workload, struct run *run, int control)
{
    if (workload->status < 0)
        announce(workload, run);
    poller = epoll_create1(EPOLL_CLOEXEC);
    poll_add(children, EPOLLIN);
    poll_add(workload->out, EPOLLIN);
    poll_add(workload->err, EPOLLIN);
    /* Edges, because a port whose host is not connected reports a hang-up for as long as that lasts. */
    poll_add(control, EPOLLIN | EPOLLET);
    poll_add(workload->status, EPOLLIN);
    poll_add(attend_descriptor(), EPOLLIN);
    for (int code = -1;;) {
        struct epoll_event ready[EVENTS_AT_ONCE];
        int count = epoll_wait(poller, ready, EVENTS_AT_ONCE, look(workload->pid));
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == children)
                code = reap(workload->pid);
            else if (fd == control)
                obey_all(control, workload, run);
            else if (fd == workload->status)
                await(workload, run);
            else if (fd == attend_descriptor())
                attend(workload->pid);
            else
                relay(workload, fd);
        }
        if (code >= 0) {
            /* The workload's PID namespace ends with it, so nobody holds the pipes' other ends any more. */
            output_drain(workload->out, STDOUT_STREAM);
            output_drain(workload->err, STDERR_STREAM);
            let_go(workload);
            return code;
        }
    }
}
