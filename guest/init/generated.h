/* The files of /etc that are made for each machine and bound over those of the image: its names, and where it asks. */
#ifndef UHM_GENERATED_H
#define UHM_GENERATED_H

#include "machine.h"

/* The machine has other addresses than NET_ADDRESS: its name gets one that is its own in any network. Called before the
 * files are written. */
void generated_leave_address(void);

/* Writes the files into the initramfs; called where that is the root. Returns NULL, or what could not be done. */
const char *generated_write(const struct identity *identity);

/* Binds what was written over the files in /etc; called where the merged root is the root and has a /proc. */
const char *generated_bind(void);

/* Prepares to rewrite the files, which is cheap then. Returns 0, or -1 with errno. */
int generated_open(void);

/* Rewrites the files in place, so that whoever has them bound sees the new content. What fails is logged. */
void generated_rewrite(const struct identity *identity);

#endif
