/* The worker: an interpreter that was started in advance and waits, and the control socket to it.
 *
 * The socket carries frames as the channel to the host does. To the worker: PRELOAD; then GO, and it becomes
 * the run; or, to a template, any number of FORK, each with the run's stdin, stdout and stderr attached; or
 * START, and it becomes a branch of a session, which keeps the socket (session.c).
 * From the worker: 'P' a step is done; 'S' u32 pid of the run it forked; 'X' i32 status, u64 and u64
 * microseconds of user and system time of the run it reaped; 'E' u32 errno, it could not fork.
 *
 * A waiting worker has none of the run's code in it, and a run cannot reach the socket: a worker that
 * becomes the run closes it first, and a template is not dumpable. init checks every frame all the same. */
#include "worker.h"

#include "channel.h"
#include "command.h"
#include "fail.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { W_PRELOAD = 'p', W_GO = 'g', W_FORK = 'f', W_START = 's' };
enum { W_PRELOADED = 'P', W_STARTED = 'S', W_EXITED = 'X', W_FAILED = 'E' };

enum { STEPS_BYTES = 4096, EXITED_BYTES = 20, ROOM_TO_RECEIVE = 64 /* for whatever incoming can hold */ };

#define NO_WORKER ((struct worker){.control = -1, .pipes = NO_PIPES})

struct worker worker = {.control = -1, .pipes = {-1, {-1, -1}}};

static struct {
    size_t start, end;
    uint8_t bytes[STEPS_BYTES + HEADER_BYTES + COMMAND_BYTES + 16];
    size_t fork_at; /* the descriptors go with this byte */
    int fds[3];     /* owned until they are sent; -1: none to send */
} outgoing = {.fds = {-1, -1, -1}};

static struct {
    size_t size;
    uint8_t bytes[HEADER_BYTES + EXITED_BYTES];
} incoming;

static void hang_up(void)
{
    close_fd(&worker.control);
    close_fds(outgoing.fds, 3);
    outgoing.start = outgoing.end = incoming.size = 0;
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
    worker = NO_WORKER;
    worker.kind = kind;
    if (kind == ONE_RUN)
        open_pipes(&worker.pipes, stdio);
    worker.pid = process_start(&command, stdio, control[1], kind == TEMPLATE);
    worker.control = control[0];
    fcntl(worker.control, F_SETFL, O_NONBLOCK);
    close(control[1]);
    if (kind == ONE_RUN)
        close_fds(stdio, 3);
}

void worker_process_ended(pid_t pid, int status)
{
    if (pid != worker.pid)
        return;
    worker.ended = true;
    worker.status = status;
}

void worker_forget(void)
{
    hang_up();
    close_pipes(&worker.pipes);
    worker = NO_WORKER;
}

void worker_drop(void)
{
    processes_kill_all();
    worker_forget();
}

struct worker worker_take(void)
{
    struct worker taken = worker;
    worker.control = -1;
    worker.pipes = NO_PIPES;
    worker_forget();
    return taken;
}

/* --- To the worker -------------------------------------------------------------------------------- */

static void add_header(uint8_t type, size_t size)
{
    *put_u32(outgoing.bytes + outgoing.end, (uint32_t)size) = type;
    outgoing.end += HEADER_BYTES;
}

void worker_preload(const struct frame *f)
{
    if (!worker.pid)
        fail("protocol: nothing to preload");
    if (worker.control < 0)
        return; /* it has ended, and GO replaces it */
    if (outgoing.end + HEADER_BYTES + f->size > STEPS_BYTES)
        fail("protocol: too many steps at once");
    add_header(W_PRELOAD, f->size);
    memcpy(outgoing.bytes + outgoing.end, f->payload, f->size);
    outgoing.end += f->size;
    worker.steps++;
}

static void add_command(uint8_t type, enum worker_task task)
{
    char *payload = (char *)outgoing.bytes + outgoing.end + HEADER_BYTES;
    size_t size = command_message(&command, payload, sizeof outgoing.bytes - outgoing.end - HEADER_BYTES);
    if (size == 0)
        fail("protocol: too many arguments or variables");
    add_header(type, size);
    outgoing.end += size;
    worker.task = task;
    command_clear(&command);
}

struct pipes worker_become_run(void)
{
    add_command(W_GO, BECOMES_RUN);
    return take_pipes(&worker.pipes);
}

void worker_become_branch(void)
{
    add_command(W_START, BECOMES_BRANCH);
}

void worker_fork_run(const int theirs[3])
{
    outgoing.fork_at = outgoing.end;
    memcpy(outgoing.fds, theirs, sizeof outgoing.fds);
    memset(&worker.forked, 0, sizeof worker.forked);
    add_command(W_FORK, FORKS_RUN);
}

/* The descriptors go with the byte at fork_at, so a piece ends before it or begins with it. */
static ssize_t send_some(void)
{
    size_t until = outgoing.end;
    bool has_fds = outgoing.fds[0] >= 0, with_fds = has_fds && outgoing.start == outgoing.fork_at;
    if (has_fds && outgoing.start < outgoing.fork_at)
        until = outgoing.fork_at;
    ssize_t n = send_with_fds(worker.control, outgoing.bytes + outgoing.start, until - outgoing.start,
                              with_fds ? outgoing.fds : NULL);
    if (n > 0 && with_fds)
        close_fds(outgoing.fds, 3);
    return n;
}

bool worker_send(void)
{
    ssize_t n = send_some();
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n < 0) { /* it is dead: its exit status tells the rest */
        hang_up();
        return false;
    }
    outgoing.start += (size_t)n;
    if (outgoing.start < outgoing.end)
        return false;
    outgoing.start = outgoing.end = 0;
    if (worker.task == BECOMES_BRANCH && incoming.size)
        fail("unexpected frame from worker");
    if (worker.task == BECOMES_RUN) { /* it is the run from now on, once it has done its steps */
        shutdown(worker.control, SHUT_WR);
        worker.pid = 0;
    }
    return true;
}

/* --- From the worker ------------------------------------------------------------------------------ */

/* Whether the worker may send this type now, in this size. */
static bool is_expected(uint8_t type, uint32_t size)
{
    bool has_all = worker.steps == 0 && outgoing.start == outgoing.end; /* it has read all that it answers */
    bool forks = worker.task == FORKS_RUN && has_all;
    switch (type) {
    case W_PRELOADED:
        return size == 0 && worker.steps > 0;
    case W_STARTED:
    case W_FAILED:
        return size == 4 && forks && !worker.forked.pid;
    case W_EXITED:
        return size == EXITED_BYTES && forks && worker.forked.pid;
    default:
        return false;
    }
}

static void obey(uint8_t type, const uint8_t *payload)
{
    switch (type) {
    case W_PRELOADED:
        worker.steps--;
        outbox_put(&outbox, F_PRELOADED, "", 0);
        break;
    case W_STARTED:
        worker.forked.pid = (pid_t)get_u32(payload);
        break;
    case W_EXITED:
        worker.forked.status = (int)get_u32(payload);
        worker.forked.ended = true;
        worker.reported_us += get_u64(payload + 4) + get_u64(payload + 12);
        worker.task = WAITS;
        break;
    default:
        fail("the template cannot fork: %s", strerror((int)get_u32(payload)));
    }
}

static bool receive_some(void)
{
    if (outbox_room(&outbox) < ROOM_TO_RECEIVE)
        return false;
    ssize_t n = read(worker.control, incoming.bytes + incoming.size, sizeof incoming.bytes - incoming.size);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        hang_up();
        return false;
    }
    incoming.size += (size_t)n;
    while (incoming.size >= HEADER_BYTES) {
        uint32_t size = get_u32(incoming.bytes);
        uint8_t type = incoming.bytes[4];
        if (!is_expected(type, size))
            fail("unexpected frame from worker");
        if (incoming.size < HEADER_BYTES + size)
            break;
        obey(type, incoming.bytes + HEADER_BYTES);
        incoming.size -= HEADER_BYTES + size;
        memmove(incoming.bytes, incoming.bytes + HEADER_BYTES + size, incoming.size);
    }
    return true;
}

void worker_receive(void)
{
    while (receive_some())
        ;
}

struct pollfd worker_poll(void)
{
    bool room = outbox_room(&outbox) >= ROOM_TO_RECEIVE;
    short events = (short)((outgoing.start < outgoing.end ? POLLOUT : 0) | (room ? POLLIN : 0));
    /* Without an event to wait for, a socket that hung up would wake init for ever. */
    return (struct pollfd){events ? worker.control : -1, events, 0};
}
