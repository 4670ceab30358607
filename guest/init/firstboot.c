#include "firstboot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "root.h"

#define SCRIPTS_PATH "etc/uhmalguhm/first-boot.d"
#define DONE_PATH STATE_PATH "/first-boot"

/* From linux/openat2.h, which the libc's headers do not have. */
struct open_how {
    uint64_t flags, mode, resolve;
};
enum { RESOLVE_IN_ROOT = 0x10 };

static int open_in_root(const char *path)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    int root = open(ROOT_PATH, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    close(root);
    return fd;
}

struct firstboot firstboot_open(void)
{
    struct firstboot firstboot = {.scripts = open_in_root(SCRIPTS_PATH), .done = -1};
    if (firstboot.scripts < 0)
        return firstboot;
    mkdir(DONE_PATH, 0755);
    firstboot.done = open(DONE_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return firstboot;
}

/* Whether it is an executable file that was not run yet. */
static int is_to_be_run(const struct firstboot *firstboot, const char *name)
{
    struct stat status;
    return name[0] != '.' && fstatat(firstboot->scripts, name, &status, 0) == 0 && S_ISREG(status.st_mode) &&
           status.st_mode & S_IXUSR && faccessat(firstboot->done, name, F_OK, 0) < 0;
}

static const struct firstboot *chosen; /* scandir's filter takes no other argument */

static int choose(const struct dirent *entry)
{
    return is_to_be_run(chosen, entry->d_name);
}

__attribute__((noreturn)) static void child(const char *name, struct run *run)
{
    char path[sizeof "/" SCRIPTS_PATH + 1 + 256], wrong[256];
    char *args[] = {path, NULL};
    struct user root;
    snprintf(path, sizeof path, "/" SCRIPTS_PATH "/%s", name);
    if (user_resolve(&root, "0", wrong, sizeof wrong) < 0)
        _exit(EXIT_CANNOT_START);
    command_set_defaults(run, &root);
    if (chdir("/") < 0 || command_become(&root) < 0)
        _exit(EXIT_CANNOT_START);
    const char *reason = command_execute(args, run);
    dprintf(2, "uhm: %s: %s\n", path, reason);
    _exit(command_failure_code(errno));
}

/* The calling process is the first of its PID namespace: it inherits what the script leaves behind, which lives on. */
static void run_one(const char *name, struct run *run)
{
    int status = 0;
    pid_t ended, pid = fork();
    if (pid == 0)
        child(name, run);
    do
        ended = pid < 0 ? -1 : wait(&status);
    while (ended >= 0 && ended != pid);
    if (ended < 0)
        dprintf(2, "uhm: first boot: %s could not be run\n", name);
    else if (status)
        dprintf(2, "uhm: first boot: %s ended with %d\n", name, command_exit_code(status));
}

/* Whether it worked or not: what is run twice is worse than what was run once in vain. */
static void note(const struct firstboot *firstboot, const char *name)
{
    int fd = openat(firstboot->done, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || fsync(fd) < 0 || fsync(firstboot->done) < 0)
        dprintf(2, "uhm: first boot: noting that %s was run: %s\n", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void firstboot_run(const struct firstboot *firstboot, struct run *run)
{
    struct dirent **names;
    char path[32];
    chosen = firstboot;
    snprintf(path, sizeof path, "/proc/self/fd/%d", firstboot->scripts);
    int count = firstboot->done < 0 ? -1 : scandir(path, &names, choose, alphasort);
    if (count < 0)
        dprintf(2, "uhm: first boot: %s\n", strerror(errno));
    for (int i = 0; i < count; i++) {
        run_one(names[i]->d_name, run);
        note(firstboot, names[i]->d_name);
    }
}
