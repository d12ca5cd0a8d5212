/* The clock that all deadlines use. */
#ifndef CODEFORGE_CLOCK_H
#define CODEFORGE_CLOCK_H

#include <stdint.h>

#define MS_NS(ms) ((ms) * (uint64_t)1000000)

uint64_t now_ns(void); /* monotonic */

#endif
