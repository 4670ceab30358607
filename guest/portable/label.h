/* The labels of volumes, as the file systems that carry data to a machine write them. */
#ifndef CLOUD_LABEL_H
#define CLOUD_LABEL_H

#include <stddef.h>

enum { LABEL_MAX = 32 };

/* Reads the label of ISO 9660 or FAT off a block device or an image of one, without blanks at its end. `type` is what mount
 * calls the file system. Returns 0, or -1 where it is neither. */
int label_read(const char *device, char label[LABEL_MAX + 1], const char **type);

#endif
