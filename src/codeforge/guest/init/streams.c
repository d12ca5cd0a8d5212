/* Bytes between the host and the run: output, within the limits; stdin, within the window. */
#include "streams.h"

#include "channel.h"
#include "clock.h"
#include "fail.h"
#include "limits.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum {
    STDIN_WINDOW = 64 * 1024, /* bytes that the host may send beyond the last ACK */
    ACK_BYTES = 4,
    DROPPED_BYTES = 9,
    DROPPED_STEP = 1024 * 1024, /* init reports dropped output in steps of this */
    ROOM_TO_READ = 4096,        /* with less room for output, the run has to wait */
};

static struct pipes pipes = {-1, {-1, -1}};
static struct {
    uint64_t sent, dropped, reported;
} output[2];
static uint64_t quiet_until_ns; /* gathering small pieces of output */

static struct { /* stdin on its way from the host to the run */
    size_t start, end;
    bool eof;
    uint8_t bytes[STDIN_WINDOW];
} input;

void streams_open(struct pipes ours)
{
    pipes = ours;
}

void streams_close(void)
{
    close_pipes(&pipes);
    memset(output, 0, sizeof output);
    quiet_until_ns = 0;
    input.start = input.end = 0;
    input.eof = false;
}

/* Sends or drops one piece of output. false: there is nothing now, or never again. */
static bool pump(int stream)
{
    static uint8_t scratch[PAYLOAD_MAX];
    uint64_t keep = limits.output_bytes - output[stream].sent;
    size_t room = outbox_room(&outbox);
    if (keep && room == 0)
        return false;
    uint8_t *into = keep ? outbox_payload(&outbox) : scratch;
    size_t want = keep == 0 ? sizeof scratch : keep < room ? (size_t)keep : room;
    ssize_t n = read(pipes.out[stream], into, want);
    if (n == 0)
        close_fd(&pipes.out[stream]);
    if (n <= 0)
        return false;
    if (keep) {
        outbox_commit(&outbox, stream ? F_STDERR : F_STDOUT, (size_t)n);
        output[stream].sent += (uint64_t)n;
    } else
        output[stream].dropped += (uint64_t)n;
    if (n < SMALL_READ)
        quiet_until_ns = now_ns() + GATHER_NS;
    return true;
}

static void report_dropped(int stream, uint64_t step)
{
    uint64_t more = output[stream].dropped - output[stream].reported;
    if (more < step || outbox_room(&outbox) < DROPPED_BYTES)
        return;
    uint8_t *p = outbox_payload(&outbox);
    *p = (uint8_t)(stream + 1);
    put_u64(p + 1, more);
    outbox_commit(&outbox, F_DROPPED, DROPPED_BYTES);
    output[stream].reported = output[stream].dropped;
}

/* Only with room for the ACK: while init waits for room, it does not listen to the host. */
static bool can_feed(void)
{
    return input.end && outbox_room(&outbox) >= ACK_BYTES;
}

static void feed(void)
{
    size_t had = input.end - input.start;
    ssize_t n = pipes.in < 0 ? (ssize_t)had : write(pipes.in, input.bytes + input.start, had);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0) { /* the run closed its stdin: drop the rest, the host need not know */
        close_fd(&pipes.in);
        n = (ssize_t)had;
    }
    input.start += (size_t)n;
    if (input.start == input.end) {
        input.start = input.end = 0;
        if (input.eof)
            close_fd(&pipes.in);
    }
    uint8_t ack[ACK_BYTES];
    put_u32(ack, (uint32_t)n);
    outbox_put(&outbox, F_ACK, ack, sizeof ack);
}

void streams_take_stdin(const struct frame *f)
{
    if (input.eof || f->size > STDIN_WINDOW - (input.end - input.start))
        fail("protocol: stdin beyond its window");
    memmove(input.bytes, input.bytes + input.start, input.end - input.start);
    input.end -= input.start;
    input.start = 0;
    memcpy(input.bytes + input.end, f->payload, f->size);
    input.end += f->size;
    input.eof = f->size == 0;
    if (input.eof && input.end == 0)
        close_fd(&pipes.in);
}

void streams_poll(struct pollfd fds[STREAMS], uint64_t *wake_ns)
{
    bool quiet = quiet_until_ns > now_ns();
    bool reads = !quiet && outbox_room(&outbox) >= ROOM_TO_READ;
    fds[0] = (struct pollfd){can_feed() ? pipes.in : -1, POLLOUT, 0};
    for (int i = 0; i < 2; i++)
        fds[1 + i] = (struct pollfd){reads ? pipes.out[i] : -1, POLLIN, 0};
    *wake_ns = quiet ? quiet_until_ns : UINT64_MAX;
}

void streams_serve(const struct pollfd fds[STREAMS])
{
    if (fds[0].revents || (can_feed() && pipes.in < 0))
        feed();
    for (int i = 0; i < 2; i++) {
        if (fds[1 + i].revents)
            pump(i);
        report_dropped(i, DROPPED_STEP);
    }
}

/* All output is in the pipes by now. Their end of file may come later: the kernel frees descriptors that were
 * in transit through a socket with a delay. */
void streams_drain(void)
{
    for (int i = 0; i < 2; i++) {
        do
            channel_wait_room(16);
        while (pipes.out[i] >= 0 && pump(i));
        channel_wait_room(16);
        report_dropped(i, 1);
    }
}
