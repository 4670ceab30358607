#include "cloud.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "event.h"
#include "pairs.h"
#include "root.h"

#define PROGRAM "/portable/cloud"

enum { ANSWER_FD = 3, WAIT_MS = 30 * 1000, ANSWER_MAX_BYTES = 16 * 1024 };

static struct answer {
    char bytes[ANSWER_MAX_BYTES];
    size_t length;
} answer;

__attribute__((noreturn)) static void child(int pipe)
{
    char *args[] = {PROGRAM, ROOT_PATH, NULL};
    char *environment[] = {"PATH=/portable", NULL};
    setsid();
    if (dup2(pipe, ANSWER_FD) < 0) /* both are it where they are the same; then it must not be closed */
        _exit(1);
    fcntl(ANSWER_FD, F_SETFD, 0);
    execve(PROGRAM, args, environment);
    log_line(PROGRAM ": %m");
    _exit(1);
}

/* Takes what is in the pipe now. Returns whether more may come. */
static int take(int pipe)
{
    for (;;) {
        ssize_t got = read(pipe, answer.bytes + answer.length, sizeof answer.bytes - answer.length);
        if (got <= 0)
            return got < 0 && (errno == EAGAIN || errno == EINTR);
        answer.length += (size_t)got;
    }
}

/* Reads until the program has ended; its children may hold the pipe for longer. Returns whether it has. */
static int listen_to(int pipe, int process)
{
    struct pollfd polled[] = {{.fd = process, .events = POLLIN}, {.fd = pipe, .events = POLLIN}};
    int64_t deadline = clock_ms() + WAIT_MS;
    for (int64_t left; (left = deadline - clock_ms()) > 0;) {
        poll(polled, 2, (int)left);
        if (polled[1].revents && !take(pipe))
            polled[1].fd = -1;
        if (polled[0].revents)
            return 1;
    }
    return 0;
}

static void wait_for(pid_t pid, int pipe)
{
    int status = 0, process = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process < 0 || !listen_to(pipe, process)) {
        log_line(PROGRAM " takes too long");
        kill(pid, SIGKILL);
    }
    waitpid(pid, &status, 0);
    take(pipe);
    close(process);
    if (WIFEXITED(status) && WEXITSTATUS(status))
        log_line(PROGRAM " ended with %d", WEXITSTATUS(status));
}

/* The file that is made of them has a line for each; the first takes the place of the default. */
static void add_nameserver(struct identity *identity, const char *address, int first)
{
    char *known = identity->nameserver;
    size_t used = first ? 0 : strlen(known);
    snprintf(known + used, sizeof identity->nameserver - used, "%s%s", first ? "" : "\nnameserver ", address);
}

static void take_answer(struct identity *identity)
{
    struct pairs pairs = pairs_of(answer.bytes, answer.length);
    const char *key;
    char *value;
    int nameservers = 0;
    while (pairs_next(&pairs, &key, &value) > 0)
        if (strcmp(key, "nameserver") == 0)
            add_nameserver(identity, value, nameservers++ == 0);
        else
            identity_take(identity, key, value);
}

void cloud_ask(struct identity *identity)
{
    int pipe[2];
    if (access(PROGRAM, X_OK) < 0)
        return;
    pid_t pid = pipe2(pipe, O_CLOEXEC) < 0 ? -1 : fork();
    if (pid == 0)
        child(pipe[1]);
    if (pid < 0) {
        log_line(PROGRAM ": %m");
        return;
    }
    close(pipe[1]);
    fcntl(pipe[0], F_SETFL, O_NONBLOCK);
    wait_for(pid, pipe[0]);
    close(pipe[0]);
    take_answer(identity);
}
