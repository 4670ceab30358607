#include "command.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { OPEN_FILES_SOFT = 1024, OPEN_FILES_HARD = 524288 };

void command_set_defaults(struct run *run, const struct user *user)
{
    static char home[USER_HOME_MAX + 8], hostname[300];
    snprintf(home, sizeof home, "HOME=%s", user->home);
    snprintf(hostname, sizeof hostname, "HOSTNAME=%s", run->identity.hostname);
    if (!run_getenv(run, "PATH"))
        run->env[run->env_count++] = "PATH=" DEFAULT_PATH;
    if (!run_getenv(run, "HOSTNAME"))
        run->env[run->env_count++] = hostname;
    if (!run_getenv(run, "HOME"))
        run->env[run->env_count++] = home;
}

int command_enter_directory(const char *path)
{
    char part[PATH_MAX];
    if (chdir(path) == 0)
        return 0;
    if (errno != ENOENT || strlen(path) >= sizeof part)
        return -1;
    strcpy(part, path);
    for (char *slash = part; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        mkdir(part, 0755);
        *slash = '/';
    }
    mkdir(part, 0755);
    return chdir(path);
}

int command_become(const struct user *user)
{
    struct rlimit files = {.rlim_cur = OPEN_FILES_SOFT, .rlim_max = OPEN_FILES_HARD};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        return -1;
    if (setgroups((size_t)user->group_count, user->groups) < 0 || setgid(user->gid) < 0 || setuid(user->uid) < 0)
        return -1;
    return 0;
}

/* Finds an executable file of this name in PATH. Returns whether there is one. */
static int find(const struct run *run, const char *name, char path[PATH_MAX])
{
    for (const char *directory = run_getenv(run, "PATH"); directory;) {
        int length = (int)strcspn(directory, ":");
        struct stat status;
        snprintf(path, PATH_MAX, "%.*s/%s", length ? length : 1, length ? directory : ".", name);
        if (stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0)
            return 1;
        directory = directory[length] ? directory + length + 1 : NULL;
    }
    return 0;
}

const char *command_execute(char *const args[], const struct run *run)
{
    char path[PATH_MAX];
    struct stat status;
    const char *name = args[0];
    if (!strchr(name, '/') && !find(run, name, path)) {
        errno = ENOENT;
        return "executable file not found in $PATH";
    }
    if (strchr(name, '/'))
        snprintf(path, sizeof path, "%s", name);
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        return "is a directory";
    }
    execve(path, args, run->env);
    return strerror(errno);
}

int command_failure_code(int error)
{
    return error == ENOENT || error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_CANNOT_EXECUTE;
}

int command_exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
