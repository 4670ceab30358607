#include "gpt.h"

#include <endian.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR_BYTES = 512, MBR_TYPE = 450, MBR_SECTORS = 458, PROTECTIVE = 0xee };

/* CRC-32 as in Ethernet, bit by bit: the table is read once. */
static uint32_t crc32(const void *bytes, size_t length)
{
    const unsigned char *next = bytes;
    uint32_t crc = ~0u;
    while (length--) {
        crc ^= *next++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static size_t entries_bytes(const struct gpt *gpt)
{
    return (size_t)le32toh(gpt->header.entry_count) * GPT_ENTRY_BYTES;
}

static uint64_t entries_sectors(const struct gpt *gpt)
{
    return (entries_bytes(gpt) + SECTOR_BYTES - 1) / SECTOR_BYTES;
}

static uint32_t header_crc(const struct gpt_header *header)
{
    struct gpt_header copy = *header;
    copy.crc = 0;
    return crc32(&copy, sizeof copy);
}

static int read_at(int fd, void *bytes, size_t length, uint64_t sector)
{
    return pread(fd, bytes, length, (off_t)(sector * SECTOR_BYTES)) == (ssize_t)length ? 0 : -1;
}

static int write_at(int fd, const void *bytes, size_t length, uint64_t sector)
{
    return pwrite(fd, bytes, length, (off_t)(sector * SECTOR_BYTES)) == (ssize_t)length ? 0 : -1;
}

static int read_copy(struct gpt *gpt, int fd, uint64_t at, uint64_t sectors)
{
    struct gpt_header *header = &gpt->header;
    if (read_at(fd, header, sizeof *header, at) < 0 || memcmp(header->signature, "EFI PART", 8) != 0 ||
        le32toh(header->size) != sizeof *header || le32toh(header->crc) != header_crc(header) ||
        le64toh(header->here) != at)
        return -1;
    uint32_t count = le32toh(header->entry_count);
    if (le32toh(header->entry_size) != GPT_ENTRY_BYTES || count == 0 || count > GPT_ENTRIES_MAX ||
        le64toh(header->entries_at) >= sectors)
        return -1;
    memset(gpt->entries, 0, sizeof gpt->entries);
    if (read_at(fd, gpt->entries, entries_bytes(gpt), le64toh(header->entries_at)) < 0)
        return -1;
    return le32toh(header->entries_crc) == crc32(gpt->entries, entries_bytes(gpt)) ? 0 : -1;
}

int gpt_read(struct gpt *gpt, int fd, uint64_t sectors)
{
    gpt->is_primary = read_copy(gpt, fd, 1, sectors) == 0;
    return gpt->is_primary ? 0 : read_copy(gpt, fd, sectors - 1, sectors);
}

uint64_t gpt_last_usable(const struct gpt *gpt, uint64_t sectors)
{
    return sectors - 1 - entries_sectors(gpt) - 1;
}

/* Writes the entries, then the header, and waits for the disk in between and afterwards. */
static int write_copy(struct gpt *gpt, int fd, uint64_t here, uint64_t other, uint64_t entries_at)
{
    unsigned char sector[SECTOR_BYTES] = {0};
    struct gpt_header *header = &gpt->header;
    header->here = htole64(here);
    header->other = htole64(other);
    header->entries_at = htole64(entries_at);
    header->crc = htole32(header_crc(header));
    memcpy(sector, header, sizeof *header);
    if (write_at(fd, gpt->entries, entries_bytes(gpt), entries_at) < 0 || fsync(fd) < 0 ||
        write_at(fd, sector, sizeof sector, here) < 0)
        return -1;
    return fsync(fd);
}

/* The master boot record has one partition over all of the disk, as far as its numbers go. */
static int write_protective_size(int fd, uint64_t sectors)
{
    unsigned char sector[SECTOR_BYTES];
    uint32_t size = htole32(sectors - 1 < UINT32_MAX ? (uint32_t)(sectors - 1) : UINT32_MAX);
    if (read_at(fd, sector, sizeof sector, 0) < 0)
        return -1;
    if (sector[MBR_TYPE] != PROTECTIVE || memcmp(sector + MBR_SECTORS, &size, sizeof size) == 0)
        return 0;
    memcpy(sector + MBR_SECTORS, &size, sizeof size);
    return write_at(fd, sector, sizeof sector, 0);
}

int gpt_write(struct gpt *gpt, int fd, uint64_t sectors)
{
    uint64_t last = sectors - 1;
    gpt->header.last_usable = htole64(gpt_last_usable(gpt, sectors));
    gpt->header.entries_crc = htole32(crc32(gpt->entries, entries_bytes(gpt)));
    if (write_copy(gpt, fd, last, 1, last - entries_sectors(gpt)) < 0 || write_copy(gpt, fd, 1, last, 2) < 0)
        return -1;
    return write_protective_size(fd, sectors);
}
