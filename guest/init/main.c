/* The guest's init: brings the machine up, runs one workload in the merged root, and ends the machine with it.
 *
 * The sequence, with the events that mark it (docs/guest.md):
 *
 *     init       modules, ports, network
 *     mounted    the merged root is there
 *     waiting    for the host's `run`
 *     started    the workload was executed; see supervise.c for what happens while it runs
 *     exit       unmounted; power off
 *
 * With `uhm.template` on the kernel command line the machine waits before it mounts: it is a snapshot that is taken
 * once and then restored over other disks, so what it knows of its disk when `run` arrives is out of date.
 * A machine whose workload runs can be saved as well, and restored as several; see snapshot.c.
 * A disk that boots by itself, without a host that talks to init, says itself what to run; see portable.c.
 * Init makes one process, the workload, and others only on demand (beside.c); under emulation each fork and exec costs
 * more than all of init's own work. */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "event.h"
#include "machine.h"
#include "modules.h"
#include "net.h"
#include "output.h"
#include "portable.h"
#include "ports.h"
#include "power.h"
#include "root.h"
#include "run.h"
#include "supervise.h"
#include "template.h"
#include "workload.h"

static void mount_kernel_views(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) < 0 || mount("sysfs", "/sys", "sysfs", 0, NULL) < 0 ||
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) < 0)
        die("mounting /proc, /sys and /dev: %m");
}

static void mount_root(void)
{
    root_mount();
    event_plain("mounted");
}

/* Blocks until something arrives on the control port. Edges, for the reason given in supervise.c. */
static void wait_for_message(int control, struct message *message)
{
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLET};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, control, &wanted) < 0)
        die("waiting on uhm.control: %m");
    while (!control_next(message)) {
        epoll_wait(poller, &wanted, 1, -1);
        control_read(control);
    }
    close(poller);
}

static void wait_for_run(struct run *run, const struct ports *ports, int template)
{
    struct message message;
    if (ports->control < 0)
        die("there is no port uhm.control, so nothing says what to run");
    event_plain("waiting");
    do {
        wait_for_message(ports->control, &message);
        if (strcmp(message.verb, "stop") == 0)
            power_off();
        if (strcmp(message.verb, "rehearse") == 0 && template)
            template_rehearse(&message, ports);
    } while (strcmp(message.verb, "run") != 0);
    static char payload[1024 * 1024 + 1]; /* as large as a message may be; outlives it */
    memcpy(payload, message.payload, message.length);
    const char *wrong = run_parse(run, payload, message.length);
    if (wrong)
        die("run message: %s", wrong);
}

static int run_workload(struct run *run, int control)
{
    struct workload workload;
    char wrong[512];
    supervise_prepare();
    int code = workload_start(&workload, run, wrong, sizeof wrong);
    if (code) {
        event("error", "%s", wrong);
        return code;
    }
    return supervise(&workload, run, control);
}

/* Up to the merged root, as the host says it. */
static void prepare(struct run *run, const struct ports *ports)
{
    net_up();
    int template = template_is_one();
    if (!template)
        mount_root();
    wait_for_run(run, ports, template);
    machine_set_up(&run->identity);
    if (template) {
        root_rescan();
        mount_root();
    }
}

/* Executed by init for a rehearsal: the shortest workload there is. */
static int be_rehearsed(void)
{
    return puts("rehearsed") < 0;
}

int main(int argc, char **argv)
{
    static struct run run;
    if (argc == 2 && strcmp(argv[1], "rehearsal") == 0)
        return be_rehearsed();
    event_plain("init");
    mount_kernel_views();
    modules_load();
    struct ports ports = ports_open();
    events_attach(ports.events, ports.control);
    output_attach(ports.output);
    if (ports.control >= 0 || !portable_prepare(&run))
        prepare(&run, &ports);
    int code = run_workload(&run, ports.control);
    portable_end();
    root_unmount();
    event("exit", "%d", code);
    power_off();
}
