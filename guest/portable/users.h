/* Users, as cloud-config describes them: `users`, `user`, `groups`, `password`, `chpasswd`, `ssh_authorized_keys`. */
#ifndef CLOUD_USERS_H
#define CLOUD_USERS_H

#include "document.h"

/* Makes groups and users between accounts_open and accounts_close. `public_keys` are those of the metadata; they and the
 * top level's go to the default user, who is root where `user` names no other: container images have no user of a
 * distribution's. */
void users_apply(struct node config, struct node public_keys);

#endif
