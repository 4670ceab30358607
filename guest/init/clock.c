#include "clock.h"

#include <time.h>

int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000 + now.tv_nsec / 1000000;
}

int clock_sooner(int left, int right)
{
    if (left < 0)
        return right;
    return right < 0 || left < right ? left : right;
}
