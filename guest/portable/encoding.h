/* What content may be wrapped in. */
#ifndef CLOUD_ENCODING_H
#define CLOUD_ENCODING_H

#include "bytes.h"

/* Decodes base64, with white space anywhere in it. Returns 0, or -1 where it is not base64 or memory is short. */
int encoding_from_base64(const char *text, size_t length, struct bytes *bytes);

int encoding_is_gzip(const struct bytes *bytes);

/* Replaces gzip by what is in it. Returns 0, or -1 where it is damaged or holds too much. */
int encoding_unpack(struct bytes *bytes);

/* Takes off what `encoding:` names, as cloud-init does for a file of write_files. Returns 0, or -1 where that is unknown or the
 * content is not so encoded. */
int encoding_decode(const char *encoding, const char *text, size_t length, struct bytes *bytes);

#endif
