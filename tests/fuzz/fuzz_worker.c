/* The control socket (worker.c): requests in any order, frames from the worker in any pieces, and either side
 * reading slowly.
 *
 * An input is a script in which each byte is an operation. Invariants:
 *   - init fails exactly when the worker sends a frame that is not expected then;
 *   - otherwise the run's process, its end and the steps done are what the worker sent;
 *   - the worker reads exactly the bytes that were sent to it, and three descriptors with each FORK. */
#include "fuzz.h"
#include "worker_stubs.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SENT_MAX = 1 << 20, SAID_MAX = 1 << 16, FORKS_MAX = 1000 };

/* --- The expected outcome ---------------------------------------------------------------------------- */

static struct {
    uint8_t sent[SENT_MAX], said[SAID_MAX];
    size_t sent_end, sent_read, said_end, said_heard;
    size_t fork_at[FORKS_MAX]; /* in sent */
    size_t forks, forks_read;  /* with their descriptors */
    bool failing;              /* init has to fail now */
    unsigned steps, done;
    uint32_t pid;
    int status;
    bool running, ended;
} model;

static bool all_sent(void)
{
    return !(worker_poll().events & POLLOUT);
}

static void model_hear(void)
{
    bool forks = worker.kind == TEMPLATE && model.running && all_sent();
    while (model.said_end - model.said_heard >= HEADER_BYTES) {
        const uint8_t *p = model.said + model.said_heard;
        uint32_t size = get_u32(p), expected = p[4] == 'P' ? 0 : p[4] == 'X' ? 20 : 4;
        bool may = forks && !model.steps && !model.ended;
        may = p[4] == 'P' ? model.steps > 0 : p[4] == 'X' ? may && model.pid : (p[4] == 'S' || p[4] == 'E') && may && !model.pid;
        if (!may || size != expected) {
            model.failing = true;
            return;
        }
        if (model.said_end - model.said_heard < HEADER_BYTES + size)
            return;
        model.said_heard += HEADER_BYTES + size;
        p += HEADER_BYTES;
        switch (p[-1]) {
        case 'P':
            model.steps--;
            model.done++;
            break;
        case 'S':
            model.pid = get_u32(p);
            break;
        case 'X':
            model.status = (int)get_u32(p);
            model.ended = true;
            break;
        default:
            model.failing = true;
            return;
        }
    }
}

static void take_outbox(void)
{
    for (size_t at = 0; at < outbox.end; at += HEADER_BYTES + get_u32(outbox.bytes + at))
        if (outbox.bytes[at + 4] == F_PRELOADED)
            model.done--;
    outbox.start = outbox.end = 0;
}

/* --- Operations ------------------------------------------------------------------------------------------ */

struct script {
    const uint8_t *at, *end;
};

static uint8_t next(struct script *s)
{
    return s->at < s->end ? *s->at++ : 0;
}

static void expect_frame(uint8_t type, const void *payload, size_t size)
{
    put_u32(model.sent + model.sent_end, (uint32_t)size)[0] = type;
    memcpy(model.sent + model.sent_end + HEADER_BYTES, payload, size);
    model.sent_end += HEADER_BYTES + size;
}

static void start(enum worker_kind kind)
{
    uint8_t program[] = "program";
    close_fd(&worker_end);
    model.sent_end = model.sent_read = model.said_end = model.said_heard = 0;
    model.steps = model.done = model.pid = 0;
    model.forks = model.forks_read = 0;
    model.running = model.ended = model.failing = false;
    outbox.start = outbox.end = 0;
    command_clear(&command);
    command_arg(&command, program, sizeof program - 1);
    worker_start(kind);
}

static void preload(struct script *s)
{
    static uint8_t text[255 * 17];
    size_t size = next(s) * (next(s) & 1 ? 17u : 1u);
    memset(text, 'x', size);
    if (model.running || model.sent_end > SENT_MAX / 2)
        return;
    if (worker.control >= 0) {
        /* There is a limit on what is on its way, and only worker.c knows how much that is. */
        struct pollfd poll = worker_poll();
        if (size + HEADER_BYTES > 4096)
            model.failing = true;
        else if (poll.events & POLLOUT)
            return;
    }
    struct frame f = {F_PRELOAD, (uint32_t)size, text};
    bool there = worker.control >= 0;
    worker_preload(&f);
    HOLDS(!model.failing);
    if (there) {
        expect_frame('p', text, size);
        model.steps++;
    }
}

static void say_go(struct script *s)
{
    static char whole[COMMAND_BYTES + 16];
    static uint8_t argument[255 * 200];
    int count = next(s) % 5, size = next(s) * (next(s) & 1 ? 200 : 1);
    if (model.running || worker.control < 0 || model.sent_end > SENT_MAX / 2 || model.forks == FORKS_MAX)
        return;
    memset(argument, 'a', sizeof argument);
    for (int i = 0; i < count; i++)
        command_arg(&command, argument, (size_t)size);
    size_t n = command_message(&command, whole, sizeof whole);
    size_t at = model.sent_end;
    expect_frame(worker.kind == TEMPLATE ? 'f' : 'g', whole, n);
    model.pid = 0;
    model.ended = false;
    model.running = true;
    if (worker.kind == TEMPLATE) {
        struct pipes ours;
        int theirs[3];
        open_pipes(&ours, theirs);
        model.fork_at[model.forks++] = at;
        worker_fork_run(theirs);
        close_pipes(&ours);
    } else {
        struct pipes ours = worker_become_run();
        HOLDS(ours.in >= 0 && ours.out[0] >= 0 && ours.out[1] >= 0);
        close_pipes(&ours);
    }
    HOLDS(command.argc == 0);
}

static void worker_says(const void *bytes, size_t size)
{
    if (worker_end < 0 || model.said_end + size > SAID_MAX)
        return;
    ssize_t n = send(worker_end, bytes, size, MSG_NOSIGNAL);
    if (n > 0) {
        memcpy(model.said + model.said_end, bytes, (size_t)n);
        model.said_end += (size_t)n;
    }
}

static void worker_says_a_frame(struct script *s)
{
    static const char types[] = "PPSXEp";
    uint8_t bytes[HEADER_BYTES + 255];
    uint8_t type = (uint8_t)types[next(s) % (sizeof types - 1)], odd = next(s);
    size_t size = type == 'P' ? 0 : type == 'X' ? 20 : 4;
    if (odd > 250)
        size = next(s);
    put_u32(bytes, (uint32_t)size)[0] = type;
    memset(bytes + HEADER_BYTES, odd, size);
    worker_says(bytes, HEADER_BYTES + size);
}

static void hear(void)
{
    if (worker.control < 0)
        return;
    model_hear();
    for (size_t before = SIZE_MAX; before != outbox.end;) { /* with room in the outbox */
        take_outbox();
        before = 0;
        worker_receive();
    }
    take_outbox();
    HOLDS(!model.failing);
    if (worker.control < 0)
        return;
    HOLDS(worker.steps == model.steps);
    if (worker.kind == ONE_RUN)
        return;
    HOLDS((uint32_t)worker.forked.pid == model.pid && worker.forked.ended == model.ended);
    HOLDS(!model.ended || worker.forked.status == model.status);
}

static void hear_without_room(void)
{
    int before = 0, after = 0;
    if (worker.control < 0)
        return;
    while (outbox_room(&outbox) >= 64)
        outbox_commit(&outbox, F_STDOUT, outbox_room(&outbox));
    ioctl(worker.control, FIONREAD, &before);
    worker_receive();
    HOLDS(!(worker_poll().events & POLLIN));
    ioctl(worker.control, FIONREAD, &after);
    HOLDS(before == after);
    take_outbox();
}

static void worker_reads(size_t most)
{
    static uint8_t bytes[65536];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    if (worker_end < 0)
        return;
    struct iovec piece = {bytes, most < sizeof bytes ? most : sizeof bytes};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(worker_end, &message, MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return;
    HOLDS(model.sent_read + (size_t)n <= model.sent_end);
    HOLDS(memcmp(bytes, model.sent + model.sent_read, (size_t)n) == 0);
    size_t at = model.sent_read;
    bool has_first = model.forks_read < model.forks && model.fork_at[model.forks_read] - at < (size_t)n;
    model.sent_read += (size_t)n;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    HOLDS((c != NULL) == has_first && !(message.msg_flags & MSG_CTRUNC));
    if (!c)
        return;
    HOLDS(c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(3 * sizeof(int)));
    model.forks_read++;
    for (size_t i = 0; i < 3; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        HOLDS(fcntl(fd, F_GETFD) >= 0);
        close(fd);
    }
}

static void send_some(void)
{
    if (worker.control >= 0 && worker_poll().events & POLLOUT)
        worker_send();
}

/* A template stays for the next run if this one has ended. Otherwise there is a new worker. */
static void end_run(struct script *s)
{
    if (worker.kind == TEMPLATE && worker.forked.ended && worker.control >= 0 && all_sent()) {
        model.running = false;
        return;
    }
    worker_drop();
    start(next(s) & 1 ? TEMPLATE : ONE_RUN);
}

static void obey(struct script *s)
{
    uint8_t code = next(s);
    size_t size;
    switch (code % 12) {
    case 0:
        preload(s);
        break;
    case 1:
        say_go(s);
        break;
    case 2:
        size = code / 12u < (size_t)(s->end - s->at) ? code / 12u : (size_t)(s->end - s->at);
        worker_says(s->at, size);
        s->at += size;
        break;
    case 3:
    case 4:
        worker_says_a_frame(s);
        break;
    case 5:
        hear();
        break;
    case 6:
        hear_without_room();
        break;
    case 7:
        send_some();
        break;
    case 8:
        worker_reads(1u + next(s));
        break;
    case 9:
        worker_reads(65536);
        break;
    case 10:
        end_run(s);
        break;
    default:
        if (code > 200)
            close_fd(&worker_end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    worker_drop();
    if (setjmp(gave_up)) {
        HOLDS(model.failing);
        return 0;
    }
    start(next(&s) & 1 ? TEMPLATE : ONE_RUN);
    while (s.at < s.end)
        obey(&s);
    hear();
    for (int i = 0; i < 1000 && worker_end >= 0 && worker.control >= 0 && model.sent_read < model.sent_end; i++) {
        send_some();
        worker_reads(65536);
    }
    HOLDS(worker_end < 0 || worker.control < 0 || model.sent_read == model.sent_end);
    return 0;
}
