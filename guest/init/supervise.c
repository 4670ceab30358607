#include "supervise.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "event.h"
#include "listen.h"
#include "output.h"

enum { EVENTS_AT_ONCE = 8 };

static int children = -1; /* a signalfd that is readable when a child has ended */
static int poller = -1;

void supervise_prepare(void)
{
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
            code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return code;
}

static void obey(int control, pid_t workload)
{
    struct message message;
    control_read(control);
    while (control_next(&message)) {
        int number = strcmp(message.verb, "stop") == 0 ? SIGKILL : atoi(message.payload);
        if (strcmp(message.verb, "stop") != 0 && strcmp(message.verb, "signal") != 0)
            log_line("ignored a control message: %s", message.verb);
        else if (kill(workload, number) < 0)
            log_line("signal %d: %m", number);
    }
}

static void relay(const struct workload *workload, int fd)
{
    if (output_relay(fd, fd == workload->out ? STDOUT_STREAM : STDERR_STREAM) == RELAYED_END)
        epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
}

/* The workload's PID namespace ends with it, so nobody holds the pipes' other ends any more. */
static void drain(const struct workload *workload)
{
    while (output_relay(workload->out, STDOUT_STREAM) == RELAYED_FRAME)
        ;
    while (output_relay(workload->err, STDERR_STREAM) == RELAYED_FRAME)
        ;
}

int supervise(const struct workload *workload, int control)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    poll_add(children, EPOLLIN);
    poll_add(workload->out, EPOLLIN);
    poll_add(workload->err, EPOLLIN);
    /* Edges, because a port whose host is not connected reports a hang-up for as long as that lasts. */
    poll_add(control, EPOLLIN | EPOLLET);
    for (int code = -1;;) {
        struct epoll_event ready[EVENTS_AT_ONCE];
        int count = epoll_wait(poller, ready, EVENTS_AT_ONCE, listen_look());
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == children)
                code = reap(workload->pid);
            else if (fd == control)
                obey(control, workload->pid);
            else
                relay(workload, fd);
        }
        if (code >= 0) {
            drain(workload);
            return code;
        }
    }
}
