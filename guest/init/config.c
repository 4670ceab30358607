#include "config.h"

#include <endian.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "digits.h"
#include "event.h"
#include "hardware.h"
#include "io.h"
#include "pairs.h"
#include "verity.h"

#define MAGIC "UHMCONF1"
#define SEAL_OPTION "uhm.seal="

enum { AREA_BYTES = 1024 * 1024, SEAL_DIGITS = 64, BASE_NUMBER = 2 };

struct header {
    char magic[8];
    uint32_t length; /* little endian */
    uint32_t zero;
};

static char area[AREA_BYTES];

/* Copies the root hash that the command line holds. Returns whether it holds one. */
static int read_seal(char seal[SEAL_DIGITS + 1])
{
    char command_line[4096];
    if (read_text("/proc/cmdline", command_line, sizeof command_line) < 0)
        die("reading the kernel's command line: %m");
    const char *option = strstr(command_line, SEAL_OPTION);
    if (!option)
        return 0;
    option += strlen(SEAL_OPTION);
    size_t length = strcspn(option, " \n");
    if (length != SEAL_DIGITS)
        die("the kernel's command line has a seal of %zu digits, not %d", length, SEAL_DIGITS);
    memcpy(seal, option, length);
    seal[length] = '\0';
    return strspn(seal, "0") != SEAL_DIGITS;
}

static void seal_off(struct disk *disk, const struct verity *verity)
{
    const char *failed = verity_open(disk, verity);
    if (failed)
        die("partition %d: %s: %m", verity->data, failed);
}

/* The partition is its own hash partition: the data area lies in front of its tree. */
static void seal_config(struct disk *disk, const char *seal)
{
    hardware_load("seal");
    seal_off(disk, &(struct verity){.data = disk->config,
                                    .data_bytes = AREA_BYTES,
                                    .hashes = disk->config,
                                    .hash_offset = AREA_BYTES,
                                    .root = seal,
                                    .salt = "-"});
}

static void read_area(const struct disk *disk)
{
    char path[64];
    disk_partition_path(disk, disk->config, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t filled = 0;
    ssize_t got = 1;
    while (fd >= 0 && filled < sizeof area && (got = read(fd, area + filled, sizeof area - filled)) > 0)
        filled += (size_t)got;
    if (fd < 0 || got <= 0)
        die("reading the configuration in %s: %m", path);
    close(fd);
}

/* Takes what is for init out of the payload; the rest is as in `run`. */
static void take_own(struct config *config, struct disk *disk, struct pairs pairs)
{
    const char *key;
    char *value;
    while (pairs_next(&pairs, &key, &value) > 0) {
        struct verity verity;
        char text[512]; /* a copy to be cut up */
        if (strcmp(key, "stop-signal") == 0)
            config->stop_signal = (int)digits_decimal(value, NULL);
        if (strcmp(key, "verity") != 0 || !config->sealed)
            continue;
        snprintf(text, sizeof text, "%s", value);
        if (verity_parse(&verity, text) < 0)
            die("the configuration has a verity that is not valid");
        seal_off(disk, &verity);
    }
}

/* What the partition table says is not sealed: a layer that it hides would be missed here, one that it adds below. Nor are its
 * labels, by which base and layers could change places: what is sealed lies in this order, behind the boot partition. */
static void require_seals(const struct disk *disk)
{
    int mapped = 0, wanted = 2 + disk->layer_count; /* the configuration, the base, the layers */
    for (int number = 1; number <= PARTITIONS_MAX; number++)
        mapped += disk->mapped[number] != 0;
    int missing = !disk->mapped[disk->base], misplaced = disk->base != BASE_NUMBER;
    for (int i = 0; i < disk->layer_count; i++) {
        missing += !disk->mapped[disk->layers[i]];
        misplaced += disk->layers[i] != BASE_NUMBER + 1 + i;
    }
    if (missing || misplaced || mapped != wanted)
        die("the disk is sealed, but its partitions are not those that the seal is over");
}

void config_read(struct config *config, struct run *run, struct disk *disk)
{
    char seal[SEAL_DIGITS + 1];
    struct header header;
    *config = (struct config){.stop_signal = SIGTERM, .sealed = read_seal(seal)};
    if (config->sealed)
        seal_config(disk, seal);
    read_area(disk);
    memcpy(&header, area, sizeof header);
    size_t length = le32toh(header.length);
    if (memcmp(header.magic, MAGIC, sizeof header.magic) != 0 || length > AREA_BYTES - sizeof header)
        die("the disk's configuration has no valid header");
    take_own(config, disk, pairs_of(area + sizeof header, length));
    if (config->sealed)
        require_seals(disk);
    const char *wrong = run_parse(run, area + sizeof header, length);
    if (wrong)
        die("the disk's configuration: %s", wrong);
}
