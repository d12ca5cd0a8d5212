/* Removes what is in a directory. */
#ifndef CODEFORGE_EMPTY_H
#define CODEFORGE_EMPTY_H

#include <stdint.h>

/* At any depth, for at most so long: other processes may go on making new entries. The caller looks whether
 * anything is left. dir stays the caller's. */
void empty_directory(int dir, uint64_t most_ns);

#endif
