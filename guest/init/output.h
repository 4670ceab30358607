/* The workload's output: from its two pipes to frames on uhm.output (docs/guest.md, "Output frames"). */
#ifndef UHM_OUTPUT_H
#define UHM_OUTPUT_H

enum { STDOUT_STREAM = 1, STDERR_STREAM = 2 };

/* Sets where frames go; with -1, plain bytes go to the console. */
void output_attach(int port);

/* Has plain bytes go to every console that the kernel writes to: a screen as well as a serial line. */
void output_attach_consoles(void);

enum relayed { RELAYED_FRAME, RELAYED_NOTHING, RELAYED_END };

/* Relays what is in a pipe now, at most one frame. The pipe does not block. */
enum relayed output_relay(int pipe, int stream);

/* Relays all that is in a pipe now. Only for a pipe that nobody writes to meanwhile. */
void output_drain(int pipe, int stream);

/* Writes text of init's own as if the workload had said it. */
void output_text(int stream, const char *text);

#endif
