/* What init is told: `key\0value\0` pairs on the descriptor that it gives this program (docs/portable.md). */
#ifndef CLOUD_ANSWER_H
#define CLOUD_ANSWER_H

/* Keeps the descriptor from those who are executed; to be called before any other is opened. Without one, answers are lines
 * on standard output. */
void answer_open(void);

void answer(const char *key, const char *value);

#endif
