/* What the surroundings of a portable disk say: addresses by DHCP, settings by cloud-init. /portable/cloud asks them. */
#ifndef UHM_CLOUD_H
#define UHM_CLOUD_H

#include "machine.h"

/* Runs that program for the merged root and takes from it what the machine is to be called and whom it asks for names.
 * Waits for 30 seconds at most. What fails is logged: the workload starts in any case. */
void cloud_ask(struct identity *identity);

#endif
