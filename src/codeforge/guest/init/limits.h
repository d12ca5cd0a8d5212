/* What the host allows a run. */
#ifndef CODEFORGE_LIMITS_H
#define CODEFORGE_LIMITS_H

#include "frame.h"

extern struct limits {
    uint64_t output_bytes; /* sent for each stream; init reads the rest and counts it */
    uint64_t files_bytes;
    uint32_t files;
    uint32_t max_age_ms; /* after GO; 0: unlimited */
} limits;

void limits_parse(const struct frame *f);
/* When init gives up, for channel_expire_at(). */
uint64_t limits_expiry_ns(uint64_t started_ns);

#endif
