/* A user's home directory and the ssh keys in it. */
#ifndef CLOUD_HOME_H
#define CLOUD_HOME_H

#include "accounts.h"
#include "document.h"

/* Makes it, with copies of the files in /etc/skel. What goes wrong is said. */
void home_make(const struct account *account);

/* Adds what is not there yet to ~/.ssh/authorized_keys: a list of keys, lines of them, or a map to either, or to a map that
 * has them as `openssh-key` (the ways of the several clouds). */
void home_add_keys(const struct account *account, struct node keys);

#endif
