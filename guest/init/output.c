#include "output.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "event.h"
#include "io.h"

struct frame_header {
    uint8_t stream;
    uint8_t zero[3];
    uint32_t length;     /* big endian */
    uint32_t time_ns[2]; /* big endian, the high half first */
};

/* From linux/kd.h, which the libc's headers do not have. */
enum { KDSKBMODE = 0x4B45, K_OFF = 4 };

enum {
    FRAME_MAX_BYTES = 32 * 1024, /* what a virtio port takes in one write */
    OUTPUTS_MAX = 4,
};

static int outputs[OUTPUTS_MAX]; /* a port, or the consoles */
static int output_count;
static int framed;
static int first_is_noted;
static char frame[FRAME_MAX_BYTES];

void output_attach(int port)
{
    framed = port >= 0;
    first_is_noted = 0;
    outputs[0] = framed ? port : open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY);
    output_count = 1;
}

/* Init writes to it and waits: no key may stop the output, neither Ctrl-S nor, on a screen, Scroll Lock. */
static void disarm(int console)
{
    struct termios settings;
    if (tcgetattr(console, &settings) == 0) {
        settings.c_iflag &= ~(tcflag_t)(IXON | IXOFF);
        settings.c_lflag &= ~(tcflag_t)(ISIG | ECHO);
        tcsetattr(console, TCSANOW, &settings);
    }
    ioctl(console, KDSKBMODE, K_OFF); /* a serial line has no keyboard, and refuses it */
}

void output_attach_consoles(void)
{
    char active[256], path[300];
    int count = 0;
    if (read_text("/sys/class/tty/console/active", active, sizeof active) < 0)
        return;
    active[strcspn(active, "\n")] = '\0';
    char *rest = active;
    for (char *name; count < OUTPUTS_MAX && (name = strsep(&rest, " "));) {
        snprintf(path, sizeof path, "/dev/%s", name);
        int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
            continue;
        disarm(fd);
        outputs[count++] = fd;
    }
    if (count)
        output_count = count;
}

/* Sends the `length` bytes that lie in `frame` behind the place of the header. */
static void send_frame(int stream, size_t length)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    struct frame_header header = {
        .stream = (uint8_t)stream,
        .length = htonl((uint32_t)length),
        .time_ns = {htonl((uint32_t)(time_ns >> 32)), htonl((uint32_t)time_ns)},
    };
    memcpy(frame, &header, sizeof header);
    size_t skipped = framed ? 0 : sizeof header;
    for (int i = 0; i < output_count; i++)
        if (write_all(outputs[i], frame + skipped, sizeof header - skipped + length) < 0)
            log_line("output: %m");
}

static void note_first_output(void)
{
    if (!first_is_noted)
        event_plain("first_output");
    first_is_noted = 1;
}

enum relayed output_relay(int pipe, int stream)
{
    ssize_t got = read(pipe, frame + sizeof(struct frame_header), sizeof frame - sizeof(struct frame_header));
    if (got < 0)
        return errno == EAGAIN ? RELAYED_NOTHING : RELAYED_END;
    if (got == 0)
        return RELAYED_END;
    note_first_output();
    send_frame(stream, (size_t)got);
    return RELAYED_FRAME;
}

void output_drain(int pipe, int stream)
{
    while (output_relay(pipe, stream) == RELAYED_FRAME)
        ;
}

void output_text(int stream, const char *text)
{
    size_t length = strlen(text);
    if (length > sizeof frame - sizeof(struct frame_header))
        length = sizeof frame - sizeof(struct frame_header);
    memcpy(frame + sizeof(struct frame_header), text, length);
    send_frame(stream, length);
}
