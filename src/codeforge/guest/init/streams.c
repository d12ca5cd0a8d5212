/* Bytes between the host and the run: its output, within the limits; its stdin, within the window. */
#include "init.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    SMALL_READ = 4096,     /* output in pieces smaller than this is ... */
    COALESCE_NS = 1000000, /* ... gathered for a millisecond */
};

static struct { /* stdin on its way from the host to the run */
    size_t start, end;
    bool eof;
    uint8_t bytes[STDIN_WINDOW];
} feed;

bool feed_pending(void)
{
    return feed.end && outbox_room(&outbox) >= ACK_BYTES;
}

void feed_forget(void)
{
    feed.start = feed.end = 0;
    feed.eof = false;
}

/* Moves one piece of the run's output; false when there is nothing now or no more ever. */
bool pump(int stream)
{
    static uint8_t scratch[PAYLOAD_MAX];
    uint64_t keep = limits.output_bytes - run.sent[stream];
    size_t room = outbox_room(&outbox);
    if (keep && room == 0)
        return false;
    uint8_t *into = keep ? outbox_payload(&outbox) : scratch;
    size_t want = keep == 0 ? sizeof scratch : keep < room ? (size_t)keep : room;
    ssize_t n = read(run.out[stream], into, want);
    if (n == 0)
        close_end(&run.out[stream]);
    if (n <= 0)
        return false;
    if (keep) {
        outbox_commit(&outbox, stream ? F_STDERR : F_STDOUT, (size_t)n);
        run.sent[stream] += (uint64_t)n;
    } else
        run.dropped[stream] += (uint64_t)n;
    if (n < SMALL_READ)
        run.quiet_until_ns = now_ns() + COALESCE_NS;
    return true;
}

void tell_dropped(int stream, uint64_t step)
{
    uint64_t more = run.dropped[stream] - run.told[stream];
    if (more < step || outbox_room(&outbox) < 9)
        return;
    uint8_t *p = outbox_payload(&outbox);
    *p = (uint8_t)(stream + 1);
    put_u64(p + 1, more);
    outbox_commit(&outbox, F_DROPPED, 9);
    run.told[stream] = run.dropped[stream];
}

/* Only with room for the ACK: waiting for it would mean not to listen to the host. */
void feed_run(void)
{
    size_t had = feed.end - feed.start;
    ssize_t n = run.in < 0 ? (ssize_t)had : write(run.in, feed.bytes + feed.start, had);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0) { /* it closed its stdin: swallow the rest, the host need not know */
        close_end(&run.in);
        n = (ssize_t)had;
    }
    feed.start += (size_t)n;
    if (feed.start == feed.end) {
        feed.start = feed.end = 0;
        if (feed.eof)
            close_end(&run.in);
    }
    uint8_t ack[ACK_BYTES];
    put_u32(ack, (uint32_t)n);
    outbox_put(&outbox, F_ACK, ack, sizeof ack);
}

void take_stdin(const struct frame *f)
{
    if (feed.eof || f->size > STDIN_WINDOW - (feed.end - feed.start))
        fail("protocol: stdin beyond its window");
    memmove(feed.bytes, feed.bytes + feed.start, feed.end - feed.start);
    feed.end -= feed.start;
    feed.start = 0;
    memcpy(feed.bytes + feed.end, f->payload, f->size);
    feed.end += f->size;
    feed.eof = f->size == 0;
    if (feed.eof && feed.end == 0)
        close_end(&run.in);
}
