/* Removes what is in a directory. */
#ifndef CODEFORGE_EMPTY_H
#define CODEFORGE_EMPTY_H

#include <stdint.h>

/* Removes entries at any depth, and gives up after most_ns: other processes may keep making new ones. The
 * caller checks whether any remain. dir stays the caller's. */
void empty_directory(int dir, uint64_t most_ns);

#endif
