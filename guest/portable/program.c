#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io.h"
#include "memory.h"

enum { EXIT_NOT_THERE = 127 };

const char *program_self(void)
{
    static char path[PATH_MAX];
    if (!*path && readlink("/proc/self/exe", path, sizeof path - 1) < 0)
        return "/portable/cloud";
    return path;
}

const char *program_busybox(void)
{
    static char path[PATH_MAX + 16];
    const char *self = program_self();
    snprintf(path, sizeof path, "%.*s/busybox", (int)(strrchr(self, '/') - self), self);
    return path;
}

/* Becomes the applet, with these descriptors for standard input and output. */
static _Noreturn void become(const char *const args[], int input, int output)
{
    memory_unlimit();
    signal(SIGPIPE, SIG_DFL);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    execv(program_busybox(), (char *const *)args);
    _exit(EXIT_NOT_THERE);
}

static int succeeded(pid_t process)
{
    int status;
    while (waitpid(process, &status, 0) < 0)
        if (errno != EINTR)
            return 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int program_run(const char *const args[])
{
    pid_t process = fork();
    if (process == 0)
        become(args, open("/dev/null", O_RDWR | O_CLOEXEC), STDERR_FILENO);
    return process > 0 && succeeded(process);
}

pid_t program_start(const char *const args[], int inherited)
{
    pid_t process = fork();
    if (process != 0)
        return process;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    dup2(null, STDERR_FILENO);
    fcntl(inherited, F_SETFD, 0);
    become(args, null, null);
}

int program_filter(const char *const args[], const struct bytes *input, struct bytes *output, size_t limit)
{
    int ends[2];
    int file = memfd_create("input", MFD_CLOEXEC); /* a file, and not a second pipe, which could fill up unread */
    if (file < 0 || write_all(file, input->at, input->length) < 0 || lseek(file, 0, SEEK_SET) < 0 ||
        pipe2(ends, O_CLOEXEC) < 0) {
        if (file >= 0)
            close(file);
        return -1;
    }
    pid_t process = fork();
    if (process == 0)
        become(args, file, ends[1]);
    close(file);
    close(ends[1]);
    int result = process < 0 ? -1 : bytes_read(output, ends[0], limit);
    close(ends[0]); /* one that has more to say ends of that */
    if (process > 0 && !succeeded(process) && result == 0) {
        bytes_free(output);
        result = -1;
    }
    return result;
}
