/* Bytes to and from the interpreter of a branch.
 *
 * Order: what it wrote before it said something goes to the host before it. A message from the host waits
 * in a buffer until the socket takes it, and the host sends the next one after that. */
#include "branch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    COALESCE_NS = 1000000, /* output in pieces smaller than SMALL_READ is gathered for a millisecond */
    LAST_PIECES = 1024,    /* of what a branch said before it ended: others may go on for ever */
    EXIT_MS = 200,         /* an exit takes, at most; an interpreter that lives on without its socket is ended */
};

struct branch branches[BRANCHES_MAX];
uint64_t quiet_until_ns;

uint32_t number_of(const struct branch *b)
{
    return (uint32_t)(b - branches);
}

void begin(struct branch *b)
{
    b->exists = b->there = true;
    b->ended = false;
    b->pid = 0;
    b->control = b->out[0] = b->out[1] = b->fds[0] = b->fds[1] = b->fds[2] = -1;
    b->start = b->end = 0;
}

void let_go(struct branch *b)
{
    close_end(&b->control);
    for (int i = 0; i < 2; i++)
        close_end(&b->out[i]);
    for (int i = 0; i < 3; i++)
        close_end(&b->fds[i]);
    b->start = b->end = 0;
}

/* Its process is who spoke first on its socket, and that may have been any process of the program's. */
void end_now(struct branch *b)
{
    if (b->ended)
        return;
    if (b->pid > 1) {
        kill(-b->pid, SIGKILL);
        kill(b->pid, SIGKILL);
    }
    if (b->pid <= 1 || waitpid(b->pid, &b->status, 0) != b->pid)
        b->status = SIGKILL;
    b->ended = true;
}

/* --- From a branch ---------------------------------------------------------------------------------- */

/* At most so many bytes of what it wrote; how many, 0 when there is nothing now. */
size_t pump_text(struct branch *b, int stream, size_t most)
{
    channel_make_room(HEAD_BYTES + SMALL_READ);
    size_t room = outbox_room(&outbox) - HEAD_BYTES;
    uint8_t *into = outbox_payload(&outbox);
    ssize_t n = read(b->out[stream], into + HEAD_BYTES, most < room ? most : room);
    if (n == 0)
        close_end(&b->out[stream]);
    if (n <= 0)
        return 0;
    *put_u32(into, number_of(b)) = (uint8_t)(stream + 1);
    outbox_commit(&outbox, F_TEXT, HEAD_BYTES + (size_t)n);
    if (n < SMALL_READ)
        quiet_until_ns = now_ns() + COALESCE_NS;
    return (size_t)n;
}

/* What is in its pipes now; others may go on writing for ever. */
static void pump_all_text(struct branch *b)
{
    for (int stream = 0; stream < 2; stream++) {
        int there = 0;
        if (b->out[stream] < 0 || ioctl(b->out[stream], FIONREAD, &there))
            continue;
        for (size_t n; there > 0 && (n = pump_text(b, stream, (size_t)there)) > 0; there -= (int)n)
            ;
    }
}

/* A copy says who it is with its first bytes, and the kernel vouches for that. Nothing else is taken but
 * bytes: descriptors that it sends, init would have to hold, or to close. Without room for them the kernel
 * drops them; beside who sent them there is none. */
static ssize_t receive(struct branch *b, uint8_t *into, size_t size)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec piece = {into, size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (!b->pid) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
    }
    ssize_t n = recvmsg(b->control, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (c && !b->pid && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
        struct ucred who;
        memcpy(&who, CMSG_DATA(c), sizeof who);
        b->pid = who.pid;
    }
    return n;
}

/* How it ended, if it does within the time: who exits closes the socket a moment before. */
static bool ends_by_itself(struct branch *b)
{
    for (int waited_ms = 0; waited_ms < EXIT_MS; waited_ms++) {
        pid_t pid = waitpid(b->pid, &b->status, WNOHANG);
        if (pid)
            return pid == b->pid;
        nanosleep(&(struct timespec){0, 1000 * 1000}, NULL);
    }
    return false;
}

void hung_up(struct branch *b)
{
    close_end(&b->control);
    if (b->ended)
        return;
    if (b->pid > 1 && ends_by_itself(b))
        b->ended = true;
    else
        end_now(b);
}

bool pump_said(struct branch *b)
{
    pump_all_text(b);
    channel_make_room(HEAD_BYTES + SMALL_READ);
    uint8_t *into = outbox_payload(&outbox);
    ssize_t n = receive(b, into + 4, outbox_room(&outbox) - 4);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            hung_up(b);
        return false;
    }
    put_u32(into, number_of(b));
    outbox_commit(&outbox, F_SAID, 4 + (size_t)n);
    return true;
}

static void tell_end(struct branch *b)
{
    channel_make_room(14);
    uint8_t *start = outbox_payload(&outbox), *p = put_u32(start, number_of(b));
    *p++ = WIFSIGNALED(b->status);
    *p++ = (uint8_t)(WIFSIGNALED(b->status) ? WTERMSIG(b->status) : WEXITSTATUS(b->status));
    p = put_u32(p, oom_kill_count());
    p = put_u32(p, pids_refused_count());
    outbox_commit(&outbox, F_ENDED, (size_t)(p - start));
    let_go(b);
    b->there = false;
}

void conclude(struct branch *b)
{
    if (b->pid > 1)
        kill(-b->pid, SIGKILL); /* what it left in the background */
    for (int i = 0; i < LAST_PIECES && b->control >= 0 && pump_said(b); i++)
        ;
    pump_all_text(b);
    tell_end(b);
}

/* --- To a branch ------------------------------------------------------------------------------------ */

void send_message(struct branch *b)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof b->fds)];
    } control = {0};
    struct iovec piece = {b->message + b->start, b->end - b->start};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    bool with_fds = b->fds[0] >= 0;
    if (with_fds) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof b->fds);
        memcpy(CMSG_DATA(c), b->fds, sizeof b->fds);
    }
    ssize_t n = sendmsg(b->control, &message, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN)
        return;
    for (int i = 0; i < 3; i++)
        close_end(&b->fds[i]);
    if (n < 0) { /* it is about to end */
        b->start = b->end = 0;
        return;
    }
    b->start += (size_t)n;
    if (b->start < b->end)
        return;
    b->start = b->end = 0;
    channel_make_room(4);
    put_u32(outbox_payload(&outbox), number_of(b));
    outbox_commit(&outbox, F_TAKEN, 4);
}

void take_message(struct branch *b, uint8_t type, const uint8_t *payload, size_t size)
{
    if (b->control < 0)
        return; /* the host does not know yet that it ended */
    if (b->start < b->end)
        fail("protocol: a message before the last one was taken");
    *put_u32(b->message, (uint32_t)size) = type;
    memcpy(b->message + HEADER_BYTES, payload, size);
    b->end = HEADER_BYTES + size;
    send_message(b);
}
