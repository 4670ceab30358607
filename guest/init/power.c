#include "power.h"

#include <sys/reboot.h>
#include <unistd.h>

#include "ports.h"
#include "root.h"

void power_off(void)
{
    root_unmount();
    sync();
    /* Closing a port sends a control message that the host must take before the call returns, so what was written
     * before it has arrived too. */
    ports_close();
    reboot(RB_POWER_OFF);
    /* Without ACPI (microvm,acpi=off) power-off only halts; a reset ends QEMU under -no-reboot. */
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}
