/* Passwords that cloud-config sets: `password`, `chpasswd`, and a user's `plain_text_passwd`. */
#ifndef CLOUD_PASSWORDS_H
#define CLOUD_PASSWORDS_H

#include "document.h"

/* Sets a password that is not hashed yet. */
void passwords_set(const char *user, const char *password);

/* Sets those of `password`, for the default user (NULL: there is none), and `chpasswd`; they have to be changed at the
 * first login unless `expire` there says otherwise. */
void passwords_apply(struct node config, const char *default_user);

#endif
