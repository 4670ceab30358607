/* Names for machines. */
#ifndef CLOUD_HOSTNAME_H
#define CLOUD_HOSTNAME_H

enum { HOSTNAME_MAX = 63 };

/* Takes a host's name up to its domain. Returns 0, or -1 after saying that it is none (RFC 1123). */
int hostname_take(const char *text, char name[HOSTNAME_MAX + 1]);

#endif
