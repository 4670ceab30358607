/* How much memory this program may take, whatever it is given to read: a machine can be small. */
#ifndef CLOUD_MEMORY_H
#define CLOUD_MEMORY_H

/* From here on allocations fail instead of taking more than that. */
void memory_limit(void);

/* Takes the limit back, for a program that is about to be executed. */
void memory_unlimit(void);

#endif
