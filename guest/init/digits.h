/* Numbers as text. The C library's functions do more and are large: under emulation, code costs most when it is executed
 * for the first time, and a restored machine executes all of it for the first time. */
#ifndef UHM_DIGITS_H
#define UHM_DIGITS_H

#include <stddef.h>
#include <stdint.h>

/* The decimal digits at the start of `text` as a number; 0 where there is none. `end` may be NULL. */
int64_t digits_decimal(const char *text, const char **end);

/* Decodes pairs of hexadecimal digits, up to the first that is none, into at most `size` bytes. Returns how many. */
size_t digits_bytes(const char *text, unsigned char *bytes, size_t size);

/* Writes a number that is not negative in decimal digits, with leading zeros up to `width` of them, at most 20. Returns
 * where they end; no NUL is written. */
char *digits_write(char *to, int64_t value, int width);

#endif
