#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io.h"

enum { LINE_BYTES = 512, LINES_MAX = 200 };

void say(const char *format, ...)
{
    char line[LINE_BYTES] = "cloud-init: ";
    static int said;
    size_t head = strlen(line);
    if (++said > LINES_MAX)
        return;
    if (said == LINES_MAX)
        format = "there is more, which is not shown";
    va_list args;
    va_start(args, format);
    vsnprintf(line + head, sizeof line - head - 1, format, args);
    va_end(args);
    size_t length = strlen(line);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == '\x7f')
            line[i] = '?';
    line[length++] = '\n';
    write_all(STDERR_FILENO, line, length);
}
