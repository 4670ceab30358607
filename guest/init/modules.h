/* Kernel modules. */
#ifndef UHM_MODULES_H
#define UHM_MODULES_H

/* Loads the modules that /modules.list names, one path a line, in its order. No list: the kernel has all built in.
 * A module that does not load is logged, not fatal: what misses it will say so better. */
void modules_load(void);

/* Loads one module and deletes its file. Nothing is wrong where the file is gone: another one needed it before. */
void modules_load_file(const char *path);

#endif
