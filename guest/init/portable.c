#include "portable.h"

#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attend.h"
#include "clock.h"
#include "cloud.h"
#include "config.h"
#include "event.h"
#include "generated.h"
#include "grow.h"
#include "hardware.h"
#include "io.h"
#include "net.h"
#include "output.h"
#include "root.h"

#define MACHINE_ID_PATH STATE_PATH "/machine-id"

enum { DISK_WAIT_MS = 30 * 1000, STEP_NS = 20 * 1000 * 1000, ID_BYTES = MACHINE_ID_DIGITS / 2 };

/* Drivers of buses make devices appear, whose drivers make others appear, and some take their time. */
static void wait_for_disk(struct disk *disk)
{
    int64_t deadline = clock_ms() + DISK_WAIT_MS;
    hardware_load("portable");
    for (;;) {
        while (hardware_load_present()) /* to the end: a drive with settings may come after the disk */
            continue;
        if (disk_look(disk))
            return;
        if (clock_ms() > deadline)
            die("no disk with partitions uhm-base and uhm-state; there may be no driver for what it is connected to");
        nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
    }
}

/* 128 random bits that say that they are (RFC 4122, version 4), as systemd makes them. Returns 0, or -1 with errno. */
static int make_machine_id(char *id)
{
    unsigned char bytes[ID_BYTES];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return -1;
    bytes[6] = (unsigned char)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (unsigned char)((bytes[8] & 0x3f) | 0x80);
    for (int i = 0; i < ID_BYTES; i++) {
        *id++ = "0123456789abcdef"[bytes[i] >> 4];
        *id++ = "0123456789abcdef"[bytes[i] & 15];
    }
    *id = '\0';
    return 0;
}

/* The machine's own for as long as its state lives. After a power cut its file may hold anything. */
static void set_machine_id(struct identity *identity)
{
    char id[MACHINE_ID_DIGITS + 1];
    int known = read_text(MACHINE_ID_PATH, id, sizeof id) == MACHINE_ID_DIGITS &&
                strspn(id, "0123456789abcdef") == MACHINE_ID_DIGITS;
    if (!known && (make_machine_id(id) < 0 || write_text(MACHINE_ID_PATH, id) < 0 || root_sync() < 0)) {
        log_line("making the machine's id: %m");
        return;
    }
    memcpy(identity->machine_id, id, sizeof id);
}

int portable_prepare(struct run *run)
{
    static struct disk disk;
    struct config config;
    if (access(PORTABLE_PATH, F_OK) < 0)
        return 0;
    reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del would reset at once, whatever is not on the disk yet */
    wait_for_disk(&disk);
    if (!disk.config)
        return 0;
    output_attach_consoles();
    config_read(&config, run, &disk);
    attend_open(config.stop_signal, config.sealed);
    grow_partition(&disk);
    root_mount_disk(&disk);
    grow_file_system(&disk);
    event_plain("mounted");
    set_machine_id(&run->identity);
    net_loopback_up();
    cloud_ask(&run->identity);
    net_open_to_users();
    generated_leave_address();
    machine_set_up(&run->identity);
    return 1;
}

void portable_end(void)
{
    if (attend_descriptor() < 0)
        return;
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
}
