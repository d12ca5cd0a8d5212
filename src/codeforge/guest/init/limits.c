/* What the host allows a run. */
#include "limits.h"

#include "clock.h"
#include "fail.h"

struct limits limits = {1024 * 1024, 16 * 1024 * 1024, 1000, 0};

void limits_parse(const struct frame *f)
{
    if (f->size != 24)
        fail("protocol: limits of the wrong size");
    limits.output_bytes = get_u64(f->payload);
    limits.files_bytes = get_u64(f->payload + 8);
    limits.files = get_u32(f->payload + 16);
    limits.max_age_ms = get_u32(f->payload + 20);
}

uint64_t limits_expiry_ns(uint64_t started_ns)
{
    return limits.max_age_ms ? started_ns + MS_NS(limits.max_age_ms) : UINT64_MAX;
}
