#include "digits.h"

int64_t digits_decimal(const char *text, const char **end)
{
    int64_t value = 0;
    for (; *text >= '0' && *text <= '9' && value < INT64_MAX / 10; text++)
        value = value * 10 + (*text - '0');
    if (end)
        *end = text;
    return value;
}

static int nibble(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 'a' - 'A';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

size_t digits_bytes(const char *text, unsigned char *bytes, size_t size)
{
    size_t count = 0;
    for (; count < size; count++) {
        int high = nibble(text[2 * count]);
        int low = high < 0 ? -1 : nibble(text[2 * count + 1]);
        if (low < 0)
            break;
        bytes[count] = (unsigned char)(high << 4 | low);
    }
    return count;
}

char *digits_write(char *to, int64_t value, int width)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while ((value /= 10) || count < width);
    while (count)
        *to++ = digits[--count];
    return to;
}
