#include "control.h"

#include <string.h>
#include <unistd.h>

#include "digits.h"
#include "event.h"

enum { MESSAGE_MAX_BYTES = 1024 * 1024, HEADER_MAX_BYTES = 64 };

static char buffer[MESSAGE_MAX_BYTES + HEADER_MAX_BYTES + 1];
static size_t filled;
static size_t taken;     /* bytes of the message handed out last; dropped by the next call */
static char overwritten; /* the byte under that message's closing NUL: the first of the next header */

static void drop_taken(void)
{
    if (!taken)
        return;
    buffer[taken] = overwritten;
    memmove(buffer, buffer + taken, filled - taken);
    filled -= taken;
    taken = 0;
}

void control_read(int port)
{
    drop_taken();
    for (ssize_t got; filled < sizeof buffer - 1; filled += (size_t)got) {
        got = read(port, buffer + filled, sizeof buffer - 1 - filled);
        if (got <= 0) /* nothing more now, or no host is connected */
            return;
    }
}

/* Takes `<verb> <length>` apart. Returns whether it is that. */
static int parse_header(const char *header, struct message *message)
{
    size_t verb = strcspn(header, " ");
    const char *digits = header + verb + 1, *end;
    if (verb == 0 || verb >= sizeof message->verb || header[verb] != ' ' || *digits < '0' || *digits > '9')
        return 0;
    memcpy(message->verb, header, verb);
    message->verb[verb] = '\0';
    message->length = (size_t)digits_decimal(digits, &end);
    return *end == '\0';
}

int control_next(struct message *message)
{
    drop_taken();
    char *newline = memchr(buffer, '\n', filled);
    if (!newline) {
        if (filled >= HEADER_MAX_BYTES)
            die("control message: no header in the first %zu bytes", filled);
        return 0;
    }
    size_t header = (size_t)(newline - buffer) + 1;
    *newline = '\0';
    if (!parse_header(buffer, message) || message->length > MESSAGE_MAX_BYTES)
        die("control message: bad header \"%.40s\"", buffer);
    *newline = '\n';
    if (filled < header + message->length)
        return 0;
    message->payload = buffer + header;
    taken = header + message->length;
    overwritten = buffer[taken];
    buffer[taken] = '\0';
    return 1;
}
