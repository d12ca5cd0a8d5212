/* Frames: u32 size (little-endian), u8 type, payload. Nothing here knows what they mean. */
#include "frame.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t get_u64(const uint8_t *p)
{
    return (uint64_t)get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

uint8_t *put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        *p++ = (uint8_t)(v >> (8 * i));
    return p;
}

uint8_t *put_u64(uint8_t *p, uint64_t v)
{
    p = put_u32(p, (uint32_t)v);
    return put_u32(p, (uint32_t)(v >> 32));
}

uint8_t *inbox_room(struct inbox *in, size_t *size)
{
    memmove(in->bytes, in->bytes + in->start, in->end - in->start);
    in->end -= in->start;
    in->start = 0;
    *size = sizeof in->bytes - in->end;
    return in->bytes + in->end;
}

enum inbox_state inbox_next(struct inbox *in, struct frame *out)
{
    const uint8_t *p = in->bytes + in->start;
    size_t have = in->end - in->start;
    if (have < HEADER_BYTES)
        return INBOX_MORE;
    out->size = get_u32(p);
    out->type = p[4];
    out->payload = p + HEADER_BYTES;
    if (out->size > PAYLOAD_MAX)
        return INBOX_BAD;
    if (have < HEADER_BYTES + out->size)
        return INBOX_MORE;
    in->start += HEADER_BYTES + out->size;
    return INBOX_FRAME;
}

size_t outbox_room(const struct outbox *out)
{
    size_t left = sizeof out->bytes - out->end;
    if (left <= HEADER_BYTES)
        return 0;
    left -= HEADER_BYTES;
    return left < PAYLOAD_MAX ? left : PAYLOAD_MAX;
}

uint8_t *outbox_payload(struct outbox *out)
{
    return out->bytes + out->end + HEADER_BYTES;
}

void outbox_commit(struct outbox *out, uint8_t type, size_t size)
{
    uint8_t *p = put_u32(out->bytes + out->end, (uint32_t)size);
    *p = type;
    out->end += HEADER_BYTES + size;
}

void outbox_put(struct outbox *out, uint8_t type, const void *payload, size_t size)
{
    memcpy(outbox_payload(out), payload, size);
    outbox_commit(out, type, size);
}

bool outbox_flush(struct outbox *out, int fd)
{
    while (out->start < out->end) {
        ssize_t n = write(fd, out->bytes + out->start, out->end - out->start);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            return false;
        if (n < 0)
            break;
        out->start += (size_t)n;
    }
    memmove(out->bytes, out->bytes + out->start, out->end - out->start);
    out->end -= out->start;
    out->start = 0;
    return true;
}
