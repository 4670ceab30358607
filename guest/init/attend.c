#include "attend.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#include "clock.h"
#include "event.h"
#include "verity.h"

#define INPUT_PATH "/dev/input"

/* From linux/input.h, which the libc's headers do not have. */
struct input_event {
    struct timeval time;
    uint16_t type, code;
    int32_t value;
};
enum { EV_KEY = 1, KEY_POWER = 116, PRESSED = 1 };

enum { PATIENCE_MS = 10 * 1000 };

static int poller = -1; /* in supervise's; holds the buttons and the watch */
static int watch = -1;  /* for reads that did not verify */
static int stop_signal;
static int64_t deadline_ms; /* 0: the workload was not asked to end */

static void add(int fd)
{
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted) < 0)
        log_line("epoll: %m");
}

static void open_buttons(void)
{
    DIR *directory = opendir(INPUT_PATH);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[300];
        snprintf(path, sizeof path, INPUT_PATH "/%s", entry->d_name);
        int fd = strncmp(entry->d_name, "event", 5) == 0 ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
        if (fd >= 0)
            add(fd);
    }
    closedir(directory);
}

void attend_open(int signal, int sealed)
{
    stop_signal = signal;
    poller = epoll_create1(EPOLL_CLOEXEC);
    open_buttons();
    if (!sealed)
        return;
    watch = verity_watch();
    if (watch < 0)
        die("listening for reads that do not verify: %m");
    add(watch);
}

int attend_descriptor(void)
{
    return poller;
}

/* Returns whether a power button was pressed. */
static int was_pressed(int button)
{
    struct input_event event;
    int pressed = 0;
    while (read(button, &event, sizeof event) == sizeof event)
        pressed |= event.type == EV_KEY && event.code == KEY_POWER && event.value == PRESSED;
    if (errno == ENODEV) /* it was taken out */
        close(button);
    return pressed;
}

static void end(pid_t workload, int signal)
{
    log_line("power button: signal %d", signal);
    if (kill(workload, signal) < 0)
        log_line("signal %d: %m", signal);
}

void attend(pid_t workload)
{
    struct epoll_event ready;
    char device[64];
    while (epoll_wait(poller, &ready, 1, 0) == 1) {
        if (ready.data.fd == watch) {
            if (verity_failed(watch, device, sizeof device))
                die("what is on the disk is not what was sealed (%s)", device);
        } else if (was_pressed(ready.data.fd) && !deadline_ms) {
            end(workload, stop_signal);
            deadline_ms = clock_ms() + PATIENCE_MS;
        }
    }
}

int attend_look(pid_t workload)
{
    if (!deadline_ms)
        return -1;
    int64_t left_ms = deadline_ms - clock_ms();
    if (left_ms > 0)
        return (int)left_ms;
    end(workload, SIGKILL);
    deadline_ms = 0;
    return -1;
}
