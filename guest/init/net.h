/* The network: loopback and one card with a fixed address behind QEMU's user-mode network. */
#ifndef UHM_NET_H
#define UHM_NET_H

#define NET_ADDRESS "10.0.2.15"
#define NET_MASK "255.255.255.0"
#define NET_GATEWAY "10.0.2.2"

/* Brings up lo; a failure is logged. */
void net_loopback_up(void);

/* Brings up lo, and eth0 where there is one. What fails is logged: a machine without network can be wanted. */
void net_up(void);

/* Lets any user bind low ports and ping, as docker does. */
void net_open_to_users(void);

#endif
