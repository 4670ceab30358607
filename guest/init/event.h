/* Events: the lines that tell the host how far the guest has come (docs/guest.md, "Guest to host"). */
#ifndef UHM_EVENT_H
#define UHM_EVENT_H

/* Reports `name`, with an argument unless `format` is NULL. Before the ports are open, events are kept and sent later. */
__attribute__((format(printf, 2, 3))) void event(const char *name, const char *format, ...);

/* Reports an event that has no argument. */
void event_plain(const char *name);

/* Reports an event whose argument is a number; cheap when it is the first to be reported. */
void event_number(const char *name, int number);

/* From here on nothing is sent, or, with 0, everything again; what comes meanwhile is lost. */
void events_mute(int muted);

/* Hands the module its two ports (-1: there is no such port) and sends what was kept. */
void events_attach(int events_fd, int control_fd);

/* Reports `error` with the text, then powers the machine off. Add the meaning of errno with ": %m". */
__attribute__((format(printf, 1, 2), noreturn)) void die(const char *format, ...);

/* Writes one line to the kernel log, which is the console. */
__attribute__((format(printf, 1, 2))) void log_line(const char *format, ...);

#endif
