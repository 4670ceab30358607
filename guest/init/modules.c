#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "event.h"
#include "io.h"

void modules_load_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return;
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
        log_line("module %s: %m", path);
    if (fd >= 0)
        close(fd);
    unlink(path); /* the initramfs is memory */
}

void modules_load(void)
{
    static char list[8192];
    if (read_text("/modules.list", list, sizeof list) < 0)
        return;
    char *rest = list;
    for (char *path; (path = strsep(&rest, "\n"));)
        if (*path)
            modules_load_file(path);
}
