/* A network service of init's own that serves one request: what the workload's will do, before anyone waits for it. */
#ifndef UHM_REHEARSAL_H
#define UHM_REHEARSAL_H

/* Listens on any free TCP port, reports `rehearsing` with its number, and answers the first that connects with a file of
 * the merged root; waits for a few seconds at most. What fails is logged: it costs nothing but time later. */
void rehearsal_serve(void);

#endif
