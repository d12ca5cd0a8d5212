/* The worker: an interpreter that was started beforehand and waits, and the control socket to it.
 *
 * Frames as on the channel to the host. To the worker: PRELOAD; then GO, on which it becomes the run,
 * or, if it is a template, any number of FORK, each with the run's stdin, stdout and stderr attached.
 * Or START: it becomes a branch of a session, which keeps the socket (session.c).
 * From the worker: 'P' a step is done; 'S' u32 pid of the run it forked; 'X' i32 status, u64 and u64
 * microseconds of user and system time of the run it reaped; 'E' u32 errno, it could not fork.
 *
 * None of the run's code is in a worker that waits, and a run cannot reach the socket: a worker that
 * becomes the run closes it first, a template is not dumpable. What it says is checked all the same. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { W_PRELOAD = 'p', W_GO = 'g', W_FORK = 'f', W_START = 's', W_PRELOADED = 'P', W_STARTED = 'S', W_EXITED = 'X', W_FAILED = 'E' };

enum { STEPS_BYTES = 4096, EXITED_BYTES = 20, ROOM_TO_HEAR = 64 /* for all that heard can hold */ };

struct worker worker = {.control = -1};

static struct {
    size_t start, end;
    uint8_t bytes[STEPS_BYTES + HEADER_BYTES + COMMAND_BYTES + 16];
    size_t fork_at; /* the descriptors go with this byte */
    int fds[3];     /* -1: none to send */
} told = {.fds = {-1, -1, -1}};

static struct {
    size_t size;
    uint8_t bytes[HEADER_BYTES + EXITED_BYTES];
} heard;

static void forget_fds(void)
{
    for (int i = 0; i < 3; i++)
        close_end(&told.fds[i]);
}

static void hang_up(void)
{
    close_end(&worker.control);
    forget_fds();
    told.start = told.end = heard.size = 0;
    worker.steps = 0;
}

void worker_start(enum worker_kind kind)
{
    char variable[] = "CODEFORGE_CONTROL_FD=3";
    int control[2], stdio[3] = {0, 1, 2}; /* a template needs none: /dev/null */
    if (worker.pid)
        fail("protocol: a second worker");
    const char *wrong = command_env(&command, (uint8_t *)variable, sizeof variable - 1);
    if (wrong)
        fail("protocol: %s", wrong);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control))
        fail("socketpair: %s", strerror(errno));
    if (kind == ONE_RUN)
        open_pipes(stdio);
    worker.pid = start_command(stdio[0], stdio[1], stdio[2], control[1], kind == TEMPLATE);
    worker.kind = kind;
    worker.ended = false;
    worker.reported_us = 0;
    worker.control = control[0];
    fcntl(worker.control, F_SETFL, O_NONBLOCK);
    close(control[1]);
    if (kind == ONE_RUN)
        for (int i = 0; i < 3; i++)
            close(stdio[i]);
}

void worker_hang_up(void)
{
    hang_up();
    worker = (struct worker){.control = -1};
}

void worker_drop(void)
{
    kill_everything();
    worker_hang_up();
}

/* --- What it is told ------------------------------------------------------------------------------ */

static void header(uint8_t type, size_t size)
{
    *put_u32(told.bytes + told.end, (uint32_t)size) = type;
    told.end += HEADER_BYTES;
}

void worker_preload(const struct frame *f)
{
    if (!worker.pid)
        fail("protocol: nothing to preload");
    if (worker.control < 0)
        return; /* it ended; GO will see to that */
    if (told.end + HEADER_BYTES + f->size > STEPS_BYTES)
        fail("protocol: too many steps at once");
    header(W_PRELOAD, f->size);
    memcpy(told.bytes + told.end, f->payload, f->size);
    told.end += f->size;
    worker.steps++;
}

static void tell_command(uint8_t type)
{
    char *payload = (char *)told.bytes + told.end + HEADER_BYTES;
    size_t size = command_message(&command, payload, sizeof told.bytes - told.end - HEADER_BYTES);
    if (size == 0)
        fail("protocol: too many arguments or variables");
    header(type, size);
    told.end += size;
    command_clear(&command);
}

void worker_become_run(void)
{
    run.pid = worker.pid;
    tell_command(W_GO);
}

void worker_become_branch(void)
{
    worker.becomes_branch = true;
    tell_command(W_START);
}

void worker_fork_run(int theirs[3])
{
    told.fork_at = told.end;
    memcpy(told.fds, theirs, sizeof told.fds);
    tell_command(W_FORK);
}

static ssize_t send_told(void)
{
    size_t until = told.end;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof told.fds)];
    } control = {0};
    bool with_fds = told.fds[0] >= 0 && told.start == told.fork_at;
    if (told.fds[0] >= 0 && told.start < told.fork_at)
        until = told.fork_at;
    struct iovec piece = {told.bytes + told.start, until - told.start};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (with_fds) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof told.fds);
        memcpy(CMSG_DATA(c), told.fds, sizeof told.fds);
    }
    ssize_t n = sendmsg(worker.control, &message, MSG_NOSIGNAL);
    if (n > 0 && with_fds)
        forget_fds();
    return n;
}

void worker_tell(void)
{
    ssize_t n = send_told();
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0) { /* it died: its exit tells */
        hang_up();
        return;
    }
    told.start += (size_t)n;
    if (told.start < told.end)
        return;
    told.start = told.end = 0;
    if (worker.becomes_branch) {
        if (heard.size)
            fail("the worker talks nonsense");
        session_adopt_worker();
    } else if (run.started_ns && worker.kind == ONE_RUN) { /* it is the run now, once it has done its steps */
        shutdown(worker.control, SHUT_WR);
        worker.pid = 0;
    }
}

/* --- What it says --------------------------------------------------------------------------------- */

/* Whether it can say this now, and in so many bytes. */
static bool makes_sense(uint8_t type, uint32_t size)
{
    bool forks = worker.kind == TEMPLATE && run.started_ns && !run.ended;
    forks = forks && worker.steps == 0 && told.start == told.end; /* it has heard all of what it answers */
    switch (type) {
    case W_PRELOADED:
        return size == 0 && worker.steps > 0;
    case W_STARTED:
    case W_FAILED:
        return size == 4 && forks && !run.pid;
    case W_EXITED:
        return size == EXITED_BYTES && forks && run.pid;
    default:
        return false;
    }
}

static void obey_worker(uint8_t type, const uint8_t *payload)
{
    switch (type) {
    case W_PRELOADED:
        worker.steps--;
        outbox_put(&outbox, F_PRELOADED, "", 0);
        break;
    case W_STARTED:
        run.pid = (pid_t)get_u32(payload);
        break;
    case W_EXITED:
        run.status = (int)get_u32(payload);
        run.ended = true;
        worker.reported_us += get_u64(payload + 4) + get_u64(payload + 12);
        break;
    default:
        fail("the template cannot fork: %s", strerror((int)get_u32(payload)));
    }
}

static bool hear(void)
{
    if (outbox_room(&outbox) < ROOM_TO_HEAR)
        return false;
    ssize_t n = read(worker.control, heard.bytes + heard.size, sizeof heard.bytes - heard.size);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        hang_up();
        return false;
    }
    heard.size += (size_t)n;
    while (heard.size >= HEADER_BYTES) {
        uint32_t size = get_u32(heard.bytes);
        uint8_t type = heard.bytes[4];
        if (!makes_sense(type, size))
            fail("the worker talks nonsense");
        if (heard.size < HEADER_BYTES + size)
            break;
        obey_worker(type, heard.bytes + HEADER_BYTES);
        heard.size -= HEADER_BYTES + size;
        memmove(heard.bytes, heard.bytes + HEADER_BYTES + size, heard.size);
    }
    return true;
}

void worker_hear(void)
{
    while (hear())
        ;
}

struct pollfd worker_poll(void)
{
    bool room = outbox_room(&outbox) >= ROOM_TO_HEAR;
    short events = (short)((told.start < told.end ? POLLOUT : 0) | (room ? POLLIN : 0));
    return (struct pollfd){events ? worker.control : -1, events, 0}; /* or its end would wake init for ever */
}
