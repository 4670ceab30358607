/* Where a machine's metadata comes from: a volume labelled as cloud-init's NoCloud wants it, or an OpenStack config drive. */
#ifndef CLOUD_SOURCE_H
#define CLOUD_SOURCE_H

#include "bytes.h"

enum { SOURCE_FILE_MAX = 1024 * 1024 };

/* What was on it; a file that is not there is empty. */
struct source {
    enum { SOURCE_NONE, SOURCE_NOCLOUD, SOURCE_CONFIG_DRIVE } kind;
    struct bytes meta_data, user_data, network;
};

/* Finds a volume among the block devices, mounts it read-only for as long as it takes to read it. */
void source_find(struct source *source);

/* Reads a directory that holds what such a volume would. */
void source_read(struct source *source, const char *directory);

void source_free(struct source *source);

#endif
