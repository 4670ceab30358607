#include "hardware.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "io.h"
#include "modules.h"

#define LIST_PATH "/portable/modules.list"
#define BUSES_PATH "/sys/bus"

enum { LIST_MAX_BYTES = 512 * 1024, MODULES_MAX = 256 };

static struct module {
    char *paths;   /* NULL: it is loaded */
    char *aliases;
} modules[MODULES_MAX];
static int count;

static void read_list(void)
{
    static char list[LIST_MAX_BYTES];
    static int is_read;
    if (is_read++ || read_text(LIST_PATH, list, sizeof list) < 0)
        return;
    char *rest = list;
    for (char *line; count < MODULES_MAX && (line = strsep(&rest, "\n"));) {
        char *colon = strstr(line, " : ");
        if (!colon)
            continue;
        *colon = '\0';
        modules[count++] = (struct module){.paths = line, .aliases = colon + strlen(" : ")};
    }
}

/* Whether one of the patterns, with a blank between them, is the alias's. */
static int match(const char *patterns, const char *alias)
{
    char pattern[256];
    for (const char *next = patterns; *next;) {
        size_t length = strcspn(next, " ");
        if (length < sizeof pattern && *next == *alias) {
            memcpy(pattern, next, length);
            pattern[length] = '\0';
            if (fnmatch(pattern, alias, 0) == 0)
                return 1;
        }
        next += length + (next[length] == ' ');
    }
    return 0;
}

static void load(struct module *module)
{
    char *rest = module->paths;
    for (char *path; (path = strsep(&rest, " "));)
        modules_load_file(path);
    module->paths = NULL;
}

int hardware_load(const char *alias)
{
    int loaded = 0;
    read_list();
    for (int i = 0; i < count; i++)
        if (modules[i].paths && match(modules[i].aliases, alias)) {
            load(&modules[i]);
            loaded++;
        }
    return loaded;
}

static int load_for_bus(const char *bus)
{
    int loaded = 0;
    char path[600], alias[512];
    snprintf(path, sizeof path, BUSES_PATH "/%s/devices", bus);
    DIR *directory = opendir(path);
    if (!directory)
        return 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        snprintf(path, sizeof path, BUSES_PATH "/%s/devices/%s/modalias", bus, entry->d_name);
        if (entry->d_name[0] == '.' || read_text(path, alias, sizeof alias) <= 0)
            continue;
        alias[strcspn(alias, "\n")] = '\0';
        loaded += hardware_load(alias);
    }
    closedir(directory);
    return loaded;
}

int hardware_load_present(void)
{
    int loaded = 0;
    read_list();
    DIR *buses = count ? opendir(BUSES_PATH) : NULL;
    if (!buses)
        return 0;
    for (struct dirent *bus; (bus = readdir(buses));)
        if (bus->d_name[0] != '.')
            loaded += load_for_bus(bus->d_name);
    closedir(buses);
    return loaded > 0;
}
