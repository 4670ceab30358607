/* Drivers for whatever machine a portable disk is put into: loaded by what the kernel has found.
 *
 * They come with the loaders of the boot partition, as /portable/modules.list. Each line is `<paths> : <aliases>`: module
 * files in loading order, the last one the driver, and patterns for the devices that it drives, as in modules.alias of
 * depmod. A kernel that has all built in comes without a list. */
#ifndef UHM_HARDWARE_H
#define UHM_HARDWARE_H

/* Loads the modules that have this alias. Besides those of devices there are two: `portable`, which are loaded in any
 * case, and `seal`, for a sealed disk. Returns how many it has loaded. */
int hardware_load(const char *alias);

/* Loads the drivers of all devices that are there by now. Returns whether it has loaded any: a driver of a bus makes more
 * devices appear. */
int hardware_load_present(void);

#endif
