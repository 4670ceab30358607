#include "encoding.h"

#include <stdint.h>
#include <string.h>

#include "program.h"

enum { UNPACKED_MAX = 16 * 1024 * 1024 };

/* The value of a digit, or -1. */
static int sextet(char digit)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = digit ? strchr(digits, digit) : NULL;
    return found ? (int)(found - digits) : -1;
}

int encoding_from_base64(const char *text, size_t length, struct bytes *bytes)
{
    uint32_t bits = 0;
    int count = 0, padding = 0;
    *bytes = (struct bytes){0};
    if (bytes_add(bytes, text, length) < 0) /* more than enough: it is decoded in there */
        return -1;
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        if (strchr(" \t\r\n", text[i]) && text[i])
            continue;
        int value = text[i] == '=' ? 0 : sextet(text[i]);
        padding += text[i] == '=';
        if (value < 0 || (padding && text[i] != '='))
            goto wrong;
        bits = bits << 6 | (uint32_t)value;
        if (++count % 4)
            continue;
        for (int shift = 16; shift >= 0; shift -= 8)
            bytes->at[used++] = (char)(bits >> shift);
    }
    if (count % 4 || padding > 2)
        goto wrong;
    bytes->length = used - (size_t)padding;
    bytes->at[bytes->length] = '\0';
    return 0;
wrong:
    bytes_free(bytes);
    return -1;
}

int encoding_is_gzip(const struct bytes *bytes)
{
    return bytes->length > 2 && memcmp(bytes->at, "\x1f\x8b", 2) == 0;
}

int encoding_unpack(struct bytes *bytes)
{
    struct bytes unpacked;
    if (program_filter((const char *const[]){"gunzip", "-c", NULL}, bytes, &unpacked, UNPACKED_MAX) < 0)
        return -1;
    bytes_free(bytes);
    *bytes = unpacked;
    return 0;
}

/* Whether `word` is one of the words of a list separated by blanks. */
static int is_one_of(const char *word, const char *list)
{
    size_t length = strlen(word);
    for (const char *at = list; length && (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return 1;
    return 0;
}

int encoding_decode(const char *encoding, const char *text, size_t length, struct bytes *bytes)
{
    int is_packed = is_one_of(encoding, "gz gzip gz+base64 gzip+base64 gz+b64 gzip+b64");
    int is_base64 = is_one_of(encoding, "b64 base64 gz+base64 gzip+base64 gz+b64 gzip+b64");
    if (!is_packed && !is_base64 && !is_one_of(encoding, "text/plain"))
        return -1;
    *bytes = (struct bytes){0};
    if ((is_base64 ? encoding_from_base64(text, length, bytes) : bytes_add(bytes, text, length)) < 0)
        return -1;
    if (!is_packed || encoding_unpack(bytes) == 0)
        return 0;
    bytes_free(bytes);
    return -1;
}
