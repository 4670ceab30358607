/* Messages from the host: `<verb> <payload length>\n` and the payload, on the control port. */
#ifndef UHM_CONTROL_H
#define UHM_CONTROL_H

#include <stddef.h>

struct message {
    char verb[16];
    char *payload; /* NUL-terminated; valid until the next call here */
    size_t length;
};

/* Reads what has arrived on the port, without blocking. Call it when the port is readable, until control_next fails. */
void control_read(int port);

/* Takes the next complete message; returns whether there was one. A message that cannot be understood is fatal. */
int control_next(struct message *message);

#endif
