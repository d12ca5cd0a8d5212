/* Bytes to and from a branch's interpreter.
 *
 * Order: what it wrote before it sent a message goes to the host before that message. A message from the
 * host waits in a buffer until the socket takes it, and the host sends the next one after that. */
#include "branch.h"

#include "channel.h"
#include "clock.h"
#include "fail.h"
#include "fd.h"
#include "posture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    LAST_PIECES = 1024, /* of what a branch sent before it ended: its other processes may go on for ever */
    EXIT_MS = 200,      /* how long an exit may take; an interpreter that lives on without its socket is killed */
};

struct branch branches[BRANCHES_MAX];
uint64_t branches_quiet_until_ns;

uint32_t branch_number(const struct branch *b)
{
    return (uint32_t)(b - branches);
}

void branch_attach(struct branch *b)
{
    b->exists = b->attached = true;
    b->ended = false;
    b->pid = 0;
    b->control = b->out[0] = b->out[1] = b->fds[0] = b->fds[1] = b->fds[2] = -1;
    b->start = b->end = 0;
}

void branch_detach(struct branch *b)
{
    close_fd(&b->control);
    close_fds(b->out, 2);
    close_fds(b->fds, 3);
    b->start = b->end = 0;
}

/* b->pid is the process that sent first on the socket: of a copy, that may be any process of the program. */
void branch_kill(struct branch *b)
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

size_t branch_pump_text(struct branch *b, int stream, size_t most)
{
    channel_make_room(TEXT_HEAD_BYTES + SMALL_READ);
    size_t room = outbox_room(&outbox) - TEXT_HEAD_BYTES;
    uint8_t *into = outbox_payload(&outbox);
    ssize_t n = read(b->out[stream], into + TEXT_HEAD_BYTES, most < room ? most : room);
    if (n == 0)
        close_fd(&b->out[stream]);
    if (n <= 0)
        return 0;
    *put_u32(into, branch_number(b)) = (uint8_t)(stream + 1);
    outbox_commit(&outbox, F_TEXT, TEXT_HEAD_BYTES + (size_t)n);
    if (n < SMALL_READ)
        branches_quiet_until_ns = now_ns() + GATHER_NS;
    return (size_t)n;
}

/* Sends what is in its pipes now, and no more: its other processes may write for ever. */
static void pump_all_text(struct branch *b)
{
    for (int stream = 0; stream < 2; stream++) {
        int left = 0;
        if (b->out[stream] < 0 || ioctl(b->out[stream], FIONREAD, &left))
            continue;
        for (size_t n; left > 0 && (n = branch_pump_text(b, stream, (size_t)left)) > 0; left -= (int)n)
            ;
    }
}

/* With a copy's first bytes the kernel sends the credentials of their sender, and so its pid. init accepts no
 * descriptors, which it would have to keep or close: there is room for the credentials only, so the kernel
 * drops them. */
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

/* Waits a moment for its exit: a process that exits closes its socket first. */
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

void branch_hung_up(struct branch *b)
{
    close_fd(&b->control);
    if (b->ended)
        return;
    if (b->pid > 1 && ends_by_itself(b))
        b->ended = true;
    else
        branch_kill(b);
}

bool branch_pump_said(struct branch *b)
{
    static uint8_t said[PAYLOAD_MAX - 4];
    ssize_t n = receive(b, said, sizeof said);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            branch_hung_up(b);
        return false;
    }
    pump_all_text(b); /* after receiving: text that came between the two would follow the message */
    channel_make_room(4 + (size_t)n);
    memcpy(put_u32(outbox_payload(&outbox), branch_number(b)), said, (size_t)n);
    outbox_commit(&outbox, F_SAID, 4 + (size_t)n);
    return true;
}

static void send_ended(struct branch *b)
{
    channel_make_room(14);
    uint8_t *start = outbox_payload(&outbox), *p = put_u32(start, branch_number(b));
    *p++ = WIFSIGNALED(b->status);
    *p++ = (uint8_t)(WIFSIGNALED(b->status) ? WTERMSIG(b->status) : WEXITSTATUS(b->status));
    p = put_u32(p, oom_kill_count());
    p = put_u32(p, pids_refused_count());
    outbox_commit(&outbox, F_ENDED, (size_t)(p - start));
    branch_detach(b);
    b->attached = false;
}

void branch_conclude(struct branch *b)
{
    if (b->pid > 1)
        kill(-b->pid, SIGKILL); /* its background processes */
    for (int i = 0; i < LAST_PIECES && b->control >= 0 && branch_pump_said(b); i++)
        ;
    pump_all_text(b);
    send_ended(b);
}

/* --- To a branch ------------------------------------------------------------------------------------ */

void branch_send_message(struct branch *b)
{
    const int *fds = b->fds[0] >= 0 ? b->fds : NULL;
    ssize_t n = send_with_fds(b->control, b->message + b->start, b->end - b->start, fds);
    if (n < 0 && errno == EAGAIN)
        return;
    close_fds(b->fds, 3);
    if (n < 0) { /* it is about to end, or has ended */
        b->start = b->end = 0;
        return;
    }
    b->start += (size_t)n;
    if (b->start < b->end)
        return;
    b->start = b->end = 0;
    channel_make_room(4);
    put_u32(outbox_payload(&outbox), branch_number(b));
    outbox_commit(&outbox, F_TAKEN, 4);
}

void branch_take_message(struct branch *b, uint8_t type, const uint8_t *payload, size_t size)
{
    if (b->control < 0)
        return; /* it has ended, and the host does not know yet */
    if (b->start < b->end)
        fail("protocol: a message before the last one was taken");
    *put_u32(b->message, (uint32_t)size) = type;
    memcpy(b->message + HEADER_BYTES, payload, size);
    b->end = HEADER_BYTES + size;
    branch_send_message(b);
}
