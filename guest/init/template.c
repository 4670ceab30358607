#include "template.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "event.h"
#include "io.h"
#include "machine.h"
#include "output.h"
#include "root.h"
#include "run.h"
#include "supervise.h"
#include "workload.h"

int template_is_one(void)
{
    char command_line[4096];
    return read_text("/proc/cmdline", command_line, sizeof command_line) > 0 && strstr(command_line, "uhm.template");
}

/* The workload from its start to its end, without a word to the host. */
static void run_silently(struct run *run, const struct ports *ports)
{
    struct workload workload;
    char wrong[512];
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    output_attach(null);
    events_mute(1);
    supervise_prepare();
    if (workload_start(&workload, run, wrong, sizeof wrong) == 0)
        supervise(&workload, run, -1);
    else
        log_line("rehearsing: %s", wrong);
    events_mute(0);
    output_attach(ports->output);
    close(null);
}

void template_rehearse(const struct message *message, const struct ports *ports)
{
    static struct run run;
    const char *wrong = run_parse(&run, message->payload, message->length);
    if (wrong)
        die("rehearse message: %s", wrong);
    run.is_rehearsal = 1;
    machine_set_up(&run.identity);
    root_rescan();
    root_mount();
    run_silently(&run, ports);
    root_release();
    event_plain("rehearsed");
}
