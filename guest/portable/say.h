/* What is told to whoever watches the console. */
#ifndef CLOUD_SAY_H
#define CLOUD_SAY_H

/* Writes one line to standard error. What a user wrote may be quoted in it: all that does not print becomes a question
 * mark, so that no input can steer a terminal or make a line of its own. There is an end to how many lines it writes. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

#endif
