/* `write_files` of cloud-config. */
#ifndef CLOUD_FILES_H
#define CLOUD_FILES_H

#include "document.h"

/* Writes them, between accounts_open and accounts_close: an owner may be a user that was made just now. */
void files_write(struct node files);

#endif
