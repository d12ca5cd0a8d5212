/* Any bytes, in pieces of any size, through the parts of init that parse and build frames (frame.c) and
 * gather commands (command.c).
 *
 * The first byte seeds the sizes of the pieces. Invariants:
 *   - the frames are those that a plain parser finds in the whole, whatever the pieces;
 *   - each payload lies inside the inbox;
 *   - frames put into an outbox come out of a pipe unchanged, however it is flushed;
 *   - a command's message has as many strings as it says, and they are the ones put in. */
#include "fuzz.h"
#include "command.h"
#include "frame.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct inbox inbox;
static struct inbox echo;
static struct outbox out;
static int pipe_ends[2] = {-1, -1};

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

/* --- A plain parser ----------------------------------------------------------------------------- */

struct reading {
    const uint8_t *data;
    size_t size, at;
};

static enum inbox_state read_plainly(struct reading *r, struct frame *f)
{
    if (r->size - r->at < 5)
        return INBOX_MORE;
    const uint8_t *p = r->data + r->at;
    f->size = p[0] + p[1] * 256u + p[2] * 65536u + p[3] * 16777216u;
    f->type = p[4];
    f->payload = p + 5;
    if (f->size > PAYLOAD_MAX)
        return INBOX_BAD;
    if (r->size - r->at - 5 < f->size)
        return INBOX_MORE;
    r->at += 5 + f->size;
    return INBOX_FRAME;
}

/* --- Commands ------------------------------------------------------------------------------------- */

static void check_message(void)
{
    static char whole[COMMAND_BYTES + 16];
    size_t n = command_message(&command, whole, sizeof whole);
    HOLDS(n >= 2 && whole[n - 1] == 0); /* init's own buffer always has room */
    char *exact = malloc(n);
    HOLDS(exact != NULL);
    HOLDS(command_message(&command, exact, n) == n && memcmp(exact, whole, n) == 0);
    const char *p = exact;
    HOLDS(atoi(p) == command.argc);
    p += strlen(p) + 1;
    for (int i = 0; i < command.argc + command.envc; i++) {
        const char *expected = i < command.argc ? command.argv[i] : command.env[i - command.argc];
        HOLDS(strcmp(p, expected) == 0);
        p += strlen(p) + 1;
    }
    HOLDS(p == exact + n);
    HOLDS(command.argv[command.argc] == NULL && command.env[command.envc] == NULL);
    HOLDS(command_message(&command, exact, n - 1) == 0);
    free(exact);
}

static void obey(const struct frame *f)
{
    int strings = command.argc + command.envc;
    const char *wrong = NULL;
    switch (f->type) {
    case F_ARG:
        wrong = command_arg(&command, f->payload, f->size);
        break;
    case F_ENV:
        wrong = command_env(&command, f->payload, f->size);
        break;
    case F_CWD:
        if (!command_cwd(&command, f->payload, f->size))
            HOLDS(strlen(command.cwd) == f->size);
        return;
    case F_GO:
        check_message();
        command_clear(&command);
        return;
    default:
        return;
    }
    HOLDS(command.argc + command.envc == strings + (wrong == NULL));
}

/* --- The outbox ----------------------------------------------------------------------------------------- */

/* Checks that the pipe holds exactly what was sent, in order. */
static void take_echo(struct reading *sent)
{
    for (;;) {
        size_t room;
        uint8_t *into = inbox_room(&echo, &room);
        ssize_t n = read(pipe_ends[0], into, room);
        if (n <= 0)
            return;
        echo.end += (size_t)n;
        struct frame got, expected;
        while (inbox_next(&echo, &got) == INBOX_FRAME) {
            HOLDS(read_plainly(sent, &expected) == INBOX_FRAME);
            HOLDS(got.type == expected.type && got.size == expected.size);
            HOLDS(memcmp(got.payload, expected.payload, got.size) == 0);
        }
    }
}

static void send_frame(const struct frame *f, struct reading *sent)
{
    while (outbox_room(&out) < f->size || outbox_room(&out) == 0) {
        HOLDS(outbox_flush(&out, pipe_ends[1]));
        take_echo(sent);
    }
    outbox_put(&out, f->type, f->payload, f->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (pipe_ends[0] < 0 && pipe2(pipe_ends, O_NONBLOCK | O_CLOEXEC))
        abort();
    if (size == 0)
        return 0;
    uint32_t random = *data++;
    size--;
    memset(&inbox, 0, sizeof inbox);
    memset(&echo, 0, sizeof echo);
    memset(&out, 0, sizeof out);
    command_clear(&command);

    struct reading plain = {data, size, 0}, sent = {data, size, 0};
    enum inbox_state state = INBOX_MORE;
    for (size_t at = 0; at < size && state != INBOX_BAD;) {
        size_t room;
        uint8_t *into = inbox_room(&inbox, &room);
        HOLDS(room > 0 && into + room == inbox.bytes + sizeof inbox.bytes);
        size_t piece = random & 1 ? 1 + next_random(&random) % 16 : 1 + next_random(&random);
        next_random(&random);
        piece = piece < room ? piece : room;
        piece = piece < size - at ? piece : size - at;
        memcpy(into, data + at, piece);
        inbox.end += piece;
        at += piece;
        struct frame f, expected;
        while ((state = inbox_next(&inbox, &f)) == INBOX_FRAME) {
            HOLDS(f.payload >= inbox.bytes && f.payload + f.size <= inbox.bytes + inbox.end);
            HOLDS(read_plainly(&plain, &expected) == INBOX_FRAME);
            HOLDS(f.type == expected.type && f.size == expected.size);
            HOLDS(memcmp(f.payload, expected.payload, f.size) == 0);
            obey(&f);
            send_frame(&f, &sent);
        }
    }
    struct frame rest;
    if (state == INBOX_BAD)
        HOLDS(read_plainly(&plain, &rest) == INBOX_BAD);
    else
        HOLDS(read_plainly(&plain, &rest) == INBOX_MORE);
    check_message();
    while (out.end) {
        HOLDS(outbox_flush(&out, pipe_ends[1]));
        take_echo(&sent);
    }
    HOLDS(sent.at == plain.at);
    return 0;
}
