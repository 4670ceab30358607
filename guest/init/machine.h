/* What the host tells a machine about itself: the time, fresh randomness, its names. */
#ifndef UHM_MACHINE_H
#define UHM_MACHINE_H

#include <stdint.h>

enum { MACHINE_NAME_MAX = 255, MACHINE_ID_DIGITS = 32 };

struct identity {
    int64_t time_ns;     /* 0: none was sent */
    const char *entropy; /* hexadecimal, lies in the message; NULL: none was sent */
    char hostname[MACHINE_NAME_MAX + 1];
    char nameserver[MACHINE_NAME_MAX + 1];
    char machine_id[MACHINE_ID_DIGITS + 1]; /* empty: /etc/machine-id is the image's */
};

/* An identity before any message. */
void identity_set_defaults(struct identity *identity);

/* Takes a key of a message if it is one of an identity; an empty value leaves what is there. */
void identity_take(struct identity *identity, const char *key, const char *value);

/* Sets the clock, feeds the kernel's random generator and sets the host name. What fails is logged. */
void machine_set_up(const struct identity *identity);

#endif
