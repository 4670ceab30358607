/* An instance: what makes this machine another than those that were made of the same disk. */
#ifndef CLOUD_INSTANCE_H
#define CLOUD_INSTANCE_H

#include "document.h"
#include "source.h"

struct instance {
    struct document meta_data, user_data;
    struct node meta, config; /* config: absent where user data is none of cloud-config's */
    struct bytes script;      /* user data that is to be executed */
    int has_meta_data, has_user_data;
};

/* Parses what the source has. What cannot be is said and left out. */
void instance_parse(struct instance *instance, const struct source *source);
void instance_free(struct instance *instance);

/* The name that the machine is to have; NULL where it may keep its own. */
const char *instance_hostname(const struct instance *instance);

/* Makes users, files and scripts, unless that was done for this instance id on this disk before. */
void instance_apply(const struct instance *instance);

#endif
