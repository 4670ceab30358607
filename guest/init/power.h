/* The end of the machine. */
#ifndef UHM_POWER_H
#define UHM_POWER_H

/* Unmounts the root if it is mounted, closes the ports and powers off. QEMU ends. */
__attribute__((noreturn)) void power_off(void);

#endif
