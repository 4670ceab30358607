/* The clock that intervals are measured on. */
#ifndef UHM_CLOCK_H
#define UHM_CLOCK_H

#include <stdint.h>

/* Milliseconds on the monotonic clock, which nobody sets. */
int64_t clock_ms(void);

/* The earlier of two waits in milliseconds, of which -1 is for ever. */
int clock_sooner(int left, int right);

#endif
