#include "answer.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "io.h"

enum { ANSWER_FD = 3 };

static int is_open;

void answer_open(void)
{
    is_open = fcntl(ANSWER_FD, F_SETFD, FD_CLOEXEC) == 0;
}

void answer(const char *key, const char *value)
{
    char pair[512];
    int length = snprintf(pair, sizeof pair, "%s%c%s%c", key, is_open ? 0 : '=', value,
                          is_open ? 0 : '\n');
    if (length > 0 && (size_t)length < sizeof pair)
        write_all(is_open ? ANSWER_FD : STDOUT_FILENO, pair, (size_t)length);
}
