#include "table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes over a line that was allocated. */
static int append(struct table *table, char *line)
{
    char **grown = line ? realloc(table->lines, (table->count + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(line);
        return -1;
    }
    table->lines = grown;
    grown[table->count++] = line;
    return 0;
}

int table_read(struct table *table, const char *path, mode_t mode)
{
    *table = (struct table){.path = path, .file.mode = mode};
    if (tree_read(path, &table->file) < 0)
        return errno == ENOENT ? 0 : -1;
    char *rest = table->file.content.at;
    int result = 0;
    for (char *line; result == 0 && (line = strsep(&rest, "\n"));)
        if (*line || rest)
            result = append(table, strdup(line));
    bytes_free(&table->file.content);
    return result;
}

int table_write(struct table *table)
{
    int result = 0;
    for (size_t i = 0; table->is_changed && result == 0 && i < table->count; i++) {
        result = bytes_add(&table->file.content, table->lines[i], strlen(table->lines[i]));
        if (result == 0)
            result = bytes_add(&table->file.content, "\n", 1);
    }
    if (table->is_changed && result == 0)
        result = tree_write(table->path, &table->file);
    bytes_free(&table->file.content);
    table->is_changed = 0;
    return result;
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->lines[i]);
    free(table->lines);
    *table = (struct table){0};
}

ssize_t table_find(const struct table *table, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < table->count; i++)
        if (strncmp(table->lines[i], name, length) == 0 && table->lines[i][length] == ':')
            return (ssize_t)i;
    return -1;
}

/* Where a field begins; NULL where the line has fewer. */
static const char *field_start(const char *line, int field)
{
    for (; line && field > 0; field--) {
        line = strchr(line, ':');
        line = line ? line + 1 : NULL;
    }
    return line;
}

int table_field(const struct table *table, size_t line, int field, char text[TABLE_FIELD_MAX])
{
    const char *start = field_start(table->lines[line], field);
    size_t length = start ? strcspn(start, ":") : 0;
    if (length >= TABLE_FIELD_MAX)
        return -1;
    memcpy(text, start ? start : "", length);
    text[length] = '\0';
    return 0;
}

long table_number(const struct table *table, size_t line, int field)
{
    const char *start = field_start(table->lines[line], field);
    char *end;
    if (!start || *start < '0' || *start > '9')
        return -1;
    long number = strtol(start, &end, 10);
    return *end == ':' || !*end ? number : -1;
}

int table_set(struct table *table, size_t line, int field, const char *text)
{
    const char *old = table->lines[line], *start = field_start(old, field);
    if (!start)
        return -1;
    if (strcspn(start, ":") == strlen(text) && strncmp(start, text, strlen(text)) == 0)
        return 0;
    char *changed;
    if (asprintf(&changed, "%.*s%s%s", (int)(start - old), old, text, start + strcspn(start, ":")) < 0)
        return -1;
    free(table->lines[line]);
    table->lines[line] = changed;
    table->is_changed = 1;
    return 0;
}

int table_add(struct table *table, const char *format, ...)
{
    char *line;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&line, format, args);
    va_end(args);
    if (length < 0 || append(table, line) < 0)
        return -1;
    table->is_changed = 1;
    return 0;
}

int table_may_hold(const char *text)
{
    return strlen(text) < TABLE_FIELD_MAX && !text[strcspn(text, ":\n\r")];
}
