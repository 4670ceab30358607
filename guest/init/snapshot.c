#include "snapshot.h"

#include <errno.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "beside.h"
#include "event.h"
#include "freezer.h"
#include "generated.h"
#include "machine.h"
#include "output.h"
#include "pairs.h"
#include "rehearsal.h"
#include "root.h"

#define HOOK "/etc/uhmalguhm/after-restore"

static int frozen;
static int has_hook;

/* A link may lead anywhere in the merged root, which is not init's root; where it does not lead to a program, that is
 * seen when it is executed. */
static int find_hook(void)
{
    struct stat status;
    return lstat(ROOT_PATH HOOK, &status) == 0 &&
           (S_ISLNK(status.st_mode) || (S_ISREG(status.st_mode) && status.st_mode & 0111));
}

/* As long as init is urgent, what wakes up waits for it: else the workload would get the processor as soon as it can run,
 * and the host would hear of that much later. What init starts is never urgent. */
static void set_urgent(int urgent)
{
    struct sched_param priority = {.sched_priority = urgent};
    /* The call itself, because musl's function of this name only fails. */
    if (syscall(SYS_sched_setscheduler, 0, urgent ? SCHED_FIFO | SCHED_RESET_ON_FORK : SCHED_OTHER, &priority) < 0)
        log_line("changing the priority: %m");
}

void snapshot_freeze(const struct workload *workload)
{
    if (frozen) {
        event_plain("frozen");
        return;
    }
    const char *failed = freezer_freeze();
    if (failed) {
        event("unfrozen", "%s: %m", failed);
        return;
    }
    output_drain(workload->out, STDOUT_STREAM);
    output_drain(workload->err, STDERR_STREAM);
    if (root_sync() < 0 || generated_open() < 0) {
        int saved = errno;
        freezer_thaw();
        errno = saved;
        event("unfrozen", "writing the state out: %m");
        return;
    }
    /* All that `restore` would otherwise have to find out: how soon a machine serves depends on it. */
    has_hook = find_hook();
    set_urgent(1);
    frozen = 1;
    event_plain("frozen");
}

static void become(struct identity *identity, const struct message *message)
{
    struct pairs pairs = pairs_of(message->payload, message->length);
    const char *key;
    char *value;
    int more;
    identity->time_ns = 0;
    identity->entropy = NULL;
    while ((more = pairs_next(&pairs, &key, &value)) > 0)
        identity_take(identity, key, value);
    if (more < 0)
        die("%s message: a key or its value is not terminated", message->verb);
    machine_set_up(identity);
    generated_rewrite(identity);
    identity->entropy = NULL; /* it lies in the message */
}

static int is_out_of_place(const struct message *message)
{
    if (!frozen)
        log_line("ignored a %s: nothing is frozen", message->verb);
    return !frozen;
}

void snapshot_rehearse(struct run *run, const struct message *message)
{
    if (is_out_of_place(message))
        return;
    become(&run->identity, message);
    rehearsal_serve();
    event_plain("rehearsed");
}

/* Under emulation, each piece of code that is executed here for the first time delays the machine's start. */
void snapshot_restore(const struct workload *workload, struct run *run, const struct message *message)
{
    if (is_out_of_place(message))
        return;
    become(&run->identity, message);
    frozen = 0;
    freezer_thaw();
    if (has_hook)
        beside_hook(workload, run, HOOK);
    else
        event_number("restored", 0);
    set_urgent(0);
}

int snapshot_is_frozen(void)
{
    return frozen;
}
