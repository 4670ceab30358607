#include "memory.h"

#include <sys/resource.h>

enum { MEMORY_MAX = 64 * 1024 * 1024 };

static struct rlimit before;

void memory_limit(void)
{
    if (getrlimit(RLIMIT_AS, &before) < 0)
        return;
    setrlimit(RLIMIT_AS, &(struct rlimit){.rlim_cur = MEMORY_MAX, .rlim_max = before.rlim_max});
}

void memory_unlimit(void)
{
    if (before.rlim_max)
        setrlimit(RLIMIT_AS, &before);
}
