#include "address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "digits.h"

enum { IPV6_BYTES = 16 };

int address_is_ipv6(const char *text)
{
    return strchr(text, ':') != NULL;
}

/* The bytes of an address. Returns how many, 0 where it is none. */
static int parse(const char *text, unsigned char bytes[IPV6_BYTES])
{
    if (inet_pton(AF_INET, text, bytes) == 1)
        return 4;
    return inet_pton(AF_INET6, text, bytes) == 1 ? IPV6_BYTES : 0;
}

int address_is_one(const char *text)
{
    unsigned char bytes[IPV6_BYTES];
    return text && parse(text, bytes) > 0;
}

/* A mask's ones, which must all be in front. Returns -1 where they are not. */
static int count_ones(const unsigned char *bytes, int length)
{
    int ones = 0;
    while (ones < 8 * length && bytes[ones / 8] & 0x80 >> ones % 8)
        ones++;
    for (int bit = ones; bit < 8 * length; bit++)
        if (bytes[bit / 8] & 0x80 >> bit % 8)
            return -1;
    return ones;
}

static int prefix_of(const char *mask, int length)
{
    unsigned char bytes[IPV6_BYTES];
    const char *end;
    if (parse(mask, bytes) == length)
        return count_ones(bytes, length);
    long prefix = (long)digits_decimal(mask, &end);
    return *mask && !*end && prefix <= 8 * length ? (int)prefix : -1;
}

int address_with_prefix(const char *text, const char *mask, char address[ADDRESS_MAX])
{
    char plain[ADDRESS_MAX];
    unsigned char bytes[IPV6_BYTES];
    if (!text || strlen(text) >= sizeof plain)
        return -1;
    strcpy(plain, text);
    char *slash = strchr(plain, '/');
    if (slash) {
        *slash = '\0';
        mask = slash + 1;
    }
    int length = parse(plain, bytes);
    int prefix = !length ? -1 : mask ? prefix_of(mask, length) : 8 * length;
    if (prefix < 0)
        return -1;
    return snprintf(address, ADDRESS_MAX, "%s/%d", plain, prefix) < ADDRESS_MAX ? 0 : -1;
}
