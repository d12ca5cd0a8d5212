/* The one clock. */
#ifndef CODEFORGE_CLOCK_H
#define CODEFORGE_CLOCK_H

#include <stdint.h>

uint64_t now_ns(void); /* monotonic */

#endif
