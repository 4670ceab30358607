/* The virtio-serial ports between host and guest (docs/guest.md, "The devices"). */
#ifndef UHM_PORTS_H
#define UHM_PORTS_H

struct ports {
    int control; /* non-blocking, both directions */
    int events;  /* blocking, to the host */
    int output;  /* blocking, to the host */
};

/* Opens the ports by name; waits up to a second for them where there is a virtio-serial device, and a tenth of one where the
 * disk has started by itself: then the device is hardly ours. Missing ports are -1. */
struct ports ports_open(void);

/* Closes whatever is open. */
void ports_close(void);

#endif
