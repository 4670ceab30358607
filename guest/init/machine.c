#include "machine.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "digits.h"
#include "event.h"

/* From linux/random.h, which the libc's headers do not have. */
#define RNDADDENTROPY _IOW('R', 0x03, int[2])
#define RNDRESEEDCRNG _IO('R', 0x07)

enum { ENTROPY_MAX_BYTES = 256 };

static void copy(char *to, size_t size, const char *from)
{
    size_t length = strnlen(from, size - 1);
    memcpy(to, from, length);
    to[length] = '\0';
}

void identity_set_defaults(struct identity *identity)
{
    *identity = (struct identity){.hostname = "uhm", .nameserver = "10.0.2.3"};
}

void identity_take(struct identity *identity, const char *key, const char *value)
{
    if (*value == '\0')
        return;
    if (strcmp(key, "time") == 0)
        identity->time_ns = digits_decimal(value, NULL);
    else if (strcmp(key, "entropy") == 0)
        identity->entropy = value;
    else if (strcmp(key, "hostname") == 0)
        copy(identity->hostname, sizeof identity->hostname, value);
    else if (strcmp(key, "nameserver") == 0)
        copy(identity->nameserver, sizeof identity->nameserver, value);
    else if (strcmp(key, "machine-id") == 0)
        copy(identity->machine_id, sizeof identity->machine_id, value);
}

static void set_clock(int64_t time_ns)
{
    struct timespec now = {.tv_sec = time_ns / 1000000000, .tv_nsec = time_ns % 1000000000};
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        log_line("setting the clock: %m");
}

/* Clones of one snapshot would draw the same random numbers; with the host's bytes credited, the generator reseeds now. */
static void add_entropy(const char *hexadecimal)
{
    static int urandom = -1; /* stays open, which a restored machine gains from */
    struct {
        int bits, size;
        unsigned char bytes[ENTROPY_MAX_BYTES];
    } pool;
    pool.size = (int)digits_bytes(hexadecimal, pool.bytes, sizeof pool.bytes);
    pool.bits = pool.size * 8;
    if (urandom < 0)
        urandom = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (ioctl(urandom, RNDADDENTROPY, &pool) < 0 || ioctl(urandom, RNDRESEEDCRNG) < 0)
        log_line("adding entropy: %m");
}

void machine_set_up(const struct identity *identity)
{
    if (identity->time_ns)
        set_clock(identity->time_ns);
    if (identity->entropy)
        add_entropy(identity->entropy);
    if (sethostname(identity->hostname, strlen(identity->hostname)) < 0)
        log_line("setting the host name: %m");
}
