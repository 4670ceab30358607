/* What the host tells a machine about itself: the time, fresh randomness, its name. */
#ifndef UHM_MACHINE_H
#define UHM_MACHINE_H

#include "run.h"

/* Sets the clock, feeds the kernel's random generator and sets the host name. What fails is logged. */
void machine_set_up(const struct run *run);

#endif
