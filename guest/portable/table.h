/* The tables of users: files of lines whose fields are separated by colons, the first of which is a name (passwd(5)). */
#ifndef CLOUD_TABLE_H
#define CLOUD_TABLE_H

#include <stddef.h>
#include <sys/types.h>

#include "tree.h"

enum { TABLE_FIELD_MAX = 4096 };

struct table {
    const char *path;
    struct file file; /* its owner and mode; the content is in `lines` */
    char **lines;     /* without their ends */
    size_t count;
    int is_changed;
};

/* Reads a table; where there is none it is empty, and will be made with `mode`. Returns 0, or -1 with errno. */
int table_read(struct table *table, const char *path, mode_t mode);

/* Writes it where it was changed. Returns 0, or -1 with errno. */
int table_write(struct table *table);
void table_free(struct table *table);

/* The line of a name; -1 where there is none. */
ssize_t table_find(const struct table *table, const char *name);

/* A field of a line; the name is field 0. Empty where there is none. Returns 0, or -1 where it is longer than fields may be. */
int table_field(const struct table *table, size_t line, int field, char text[TABLE_FIELD_MAX]);

/* A field that is a number, or -1. */
long table_number(const struct table *table, size_t line, int field);

/* Sets a field that the line has. Returns 0, or -1 where memory is short or the line has none. */
int table_set(struct table *table, size_t line, int field, const char *text);

/* Adds a line. Returns 0, or -1 where memory is short. */
__attribute__((format(printf, 2, 3))) int table_add(struct table *table, const char *format, ...);

/* Whether a text may be a field: nothing in it would end the field or the line. */
int table_may_hold(const char *text);

#endif
