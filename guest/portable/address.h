/* Addresses as text, checked before a program is given them. */
#ifndef CLOUD_ADDRESS_H
#define CLOUD_ADDRESS_H

enum { ADDRESS_MAX = 64 };

/* Whether it is an IPv4 or IPv6 address, without a prefix. NULL is none. */
int address_is_one(const char *text);

int address_is_ipv6(const char *text);

/* Puts address and prefix together, `10.0.0.1/24`: the prefix stands behind the address, or in `mask` (NULL: there is none)
 * as a number or as a network mask; without one, it is the address's whole length. Returns 0, or -1 where it is no address. */
int address_with_prefix(const char *text, const char *mask, char address[ADDRESS_MAX]);

#endif
