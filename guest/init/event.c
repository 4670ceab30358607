#include "event.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "digits.h"
#include "io.h"
#include "power.h"

enum { LINE_MAX_BYTES = 1024, KEPT_MAX_BYTES = 4096 };

static int events_port = -1;
static int control_port = -1;
static int attached;
static int is_mute;
static char kept[KEPT_MAX_BYTES]; /* lines from before the ports were open */
static size_t kept_bytes;

static void send_line(const char *line, size_t length)
{
    if (is_mute)
        return;
    if (!attached) {
        if (kept_bytes + length <= sizeof kept) {
            memcpy(kept + kept_bytes, line, length);
            kept_bytes += length;
        }
        return;
    }
    if (events_port >= 0)
        write_all(events_port, line, length);
    /* The control port does not block: with no host listening, or one that does not read, the line is only in the
     * events file, where a host that comes later looks first. */
    if (control_port >= 0 && write(control_port, line, length) < 0 && errno != EAGAIN)
        log_line("control port: %m");
    if (events_port < 0 && control_port < 0)
        log_line("%.*s", (int)length - 1, line);
}

/* Appends as much of a text as fits; an argument may quote what a user wrote, and is kept to one line. */
static char *append(char *to, const char *end, const char *text)
{
    for (; *text && to < end; text++)
        *to++ = *text == '\n' ? ' ' : *text;
    return to;
}

static void send_event(const char *name, const char *argument)
{
    char line[LINE_MAX_BYTES];
    const char *end = line + sizeof line - 1;
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    char *next = digits_write(line, now.tv_sec, 1);
    *next++ = '.';
    next = digits_write(next, now.tv_nsec / 1000, 6);
    next = append(append(next, end, " "), end, name);
    if (*argument)
        next = append(append(next, end, " "), end, argument);
    *next++ = '\n';
    send_line(line, (size_t)(next - line));
}

void event(const char *name, const char *format, ...)
{
    char argument[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(argument, sizeof argument, format, args);
    va_end(args);
    send_event(name, argument);
}

void event_plain(const char *name)
{
    send_event(name, "");
}

void event_number(const char *name, int number)
{
    char argument[24];
    *digits_write(argument, number, 1) = '\0';
    send_event(name, argument);
}

void events_mute(int muted)
{
    is_mute = muted;
}

void events_attach(int events_fd, int control_fd)
{
    events_port = events_fd;
    control_port = control_fd;
    attached = 1;
    if (kept_bytes)
        send_line(kept, kept_bytes);
    kept_bytes = 0;
}

void die(const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_line("error: %s", text);
    is_mute = 0;
    if (!attached)
        events_attach(-1, -1);
    send_event("error", text);
    power_off();
}

void log_line(const char *format, ...)
{
    char line[LINE_MAX_BYTES + 16] = "<3>uhm: "; /* an error, for the console shows no less when quiet */
    size_t head = strlen(line);
    int saved = errno;
    va_list args;
    va_start(args, format);
    errno = saved;
    vsnprintf(line + head, sizeof line - head, format, args);
    va_end(args);
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        write_all(fd, line, strlen(line));
        close(fd);
    }
}
