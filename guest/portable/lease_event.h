/* What udhcpc's events and the program that started it say to each other. */
#ifndef CLOUD_LEASE_EVENT_H
#define CLOUD_LEASE_EVENT_H

/* The environment of udhcpc, and of this program when udhcpc executes it. */
#define LEASE_PIPE_VARIABLE "CLOUD_PIPE"     /* a descriptor's number */
#define LEASE_SHARED_VARIABLE "CLOUD_SHARED" /* set: the link has addresses that are not of a lease */
#define LEASE_NAMED_VARIABLE "CLOUD_NAMED"   /* set: the name servers are not to be a lease's */

enum { LEASE_STRINGS = 4 };

#endif
