#include "machine.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "event.h"

/* From linux/random.h, which the libc's headers do not have. */
#define RNDADDENTROPY _IOW('R', 0x03, int[2])
#define RNDRESEEDCRNG _IO('R', 0x07)

enum { ENTROPY_MAX_BYTES = 256 };

static void set_clock(int64_t time_ns)
{
    struct timespec now = {.tv_sec = time_ns / 1000000000, .tv_nsec = time_ns % 1000000000};
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        log_line("setting the clock: %m");
}

static size_t decode(const char *hexadecimal, unsigned char *bytes)
{
    size_t count = 0;
    unsigned byte;
    while (count < ENTROPY_MAX_BYTES && sscanf(hexadecimal + 2 * count, "%2x", &byte) == 1)
        bytes[count++] = (unsigned char)byte;
    return count;
}

/* Clones of one snapshot would draw the same random numbers; with the host's bytes credited, the generator reseeds now. */
static void add_entropy(const char *hexadecimal)
{
    struct {
        int bits, size;
        unsigned char bytes[ENTROPY_MAX_BYTES];
    } pool;
    pool.size = (int)decode(hexadecimal, pool.bytes);
    pool.bits = pool.size * 8;
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
        log_line("adding entropy: %m");
    if (fd >= 0)
        close(fd);
}

void machine_set_up(const struct run *run)
{
    if (run->time_ns)
        set_clock(run->time_ns);
    if (run->entropy)
        add_entropy(run->entropy);
    if (sethostname(run->hostname, strlen(run->hostname)) < 0)
        log_line("setting the host name: %m");
}
