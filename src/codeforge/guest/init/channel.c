/* The channel to the host, and the ways for init to end. */
#include "channel.h"

#include "clock.h"
#include "fail.h"
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const uint64_t LINGER_NS = MS_NS(5000);

int channel_in, channel_out;
struct outbox outbox;
static struct inbox inbox;
static uint64_t expires_ns = UINT64_MAX;

void channel_expire_at(uint64_t ns)
{
    expires_ns = ns;
}

/* poll() fails where the run lowered init's RLIMIT_NOFILE, as its user id may: the sandbox is useless then. */
static void poll_or_exit(struct pollfd *fds, nfds_t count, int ms)
{
    if (poll(fds, count, ms) < 0 && errno != EINTR)
        _exit(EXIT_FAILED);
}

static int ms_until(uint64_t now, uint64_t then)
{
    uint64_t ms = (then - now) / MS_NS(1) + 1;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

void channel_poll(struct pollfd *fds, nfds_t count, uint64_t wake_ns)
{
    uint64_t now = now_ns(), until = wake_ns < expires_ns ? wake_ns : expires_ns;
    if (expires_ns <= now)
        _exit(EXIT_FAILED);
    poll_or_exit(fds, count, until == UINT64_MAX ? -1 : until <= now ? 0 : ms_until(now, until));
}

void channel_flush(void)
{
    if (!outbox_flush(&outbox, channel_out))
        _exit(0); /* the host is gone */
}

static bool read_channel(void)
{
    size_t room;
    uint8_t *into = inbox_room(&inbox, &room);
    ssize_t n = read(channel_in, into, room);
    if (n == 0)
        _exit(0); /* the host is gone */
    if (n > 0)
        inbox.end += (size_t)n;
    return n > 0;
}

void channel_receive(void (*obey)(const struct frame *f))
{
    struct frame f;
    enum inbox_state state;
    if (!read_channel())
        return;
    while ((state = inbox_next(&inbox, &f)) == INBOX_FRAME)
        obey(&f);
    if (state == INBOX_BAD)
        fail("protocol: frame of %u bytes", f.size);
}

static void wait_for_host(void)
{
    struct pollfd fds[] = {{outbox.end ? channel_out : -1, POLLOUT, 0}, {channel_in, POLLIN, 0}};
    channel_poll(fds, 2, UINT64_MAX);
    struct frame dropped;
    if (fds[1].revents && read_channel())
        while (inbox_next(&inbox, &dropped) == INBOX_FRAME)
            ;
    channel_flush();
}

void channel_wait_room(size_t payload)
{
    while (outbox_room(&outbox) < payload)
        wait_for_host();
}

void channel_make_room(size_t payload)
{
    while (outbox_room(&outbox) < payload) {
        struct pollfd out = {channel_out, POLLOUT, 0};
        channel_poll(&out, 1, UINT64_MAX);
        channel_flush();
    }
}

/* init stays until the host hangs up, because the container ends with it. An engine may then lose the last
 * frames, or miss an out-of-memory kill in a control group that is gone. */
_Noreturn void finish(int code)
{
    static uint8_t dropped[4096];
    while (outbox.end)
        wait_for_host();
    for (uint64_t now, until = now_ns() + LINGER_NS; (now = now_ns()) < until;) {
        struct pollfd in = {channel_in, POLLIN, 0};
        poll_or_exit(&in, 1, ms_until(now, until));
        ssize_t n = in.revents ? read(channel_in, dropped, sizeof dropped) : 1;
        if (n == 0 || (n < 0 && errno != EAGAIN))
            break;
    }
    _exit(code);
}

_Noreturn void fail(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    channel_wait_room(sizeof text);
    outbox_put(&outbox, F_FAIL, text, strlen(text));
    finish(EXIT_FAILED);
}

void channel_take_over(void)
{
    /* High numbers, so that neither is in the way of the run's 0 to 3. */
    channel_in = fcntl(0, F_DUPFD_CLOEXEC, 10);
    channel_out = fcntl(1, F_DUPFD_CLOEXEC, 10);
    int null = open("/dev/null", O_RDWR);
    if (channel_in < 0 || channel_out < 0 || null < 0)
        _exit(EXIT_FAILED);
    for (int fd = 0; fd <= CONTROL_FD; fd++)
        if (fd != null && dup2(null, fd) < 0)
            _exit(EXIT_FAILED);
    fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC); /* a place holder, so that pipes get higher numbers */
    syscall(SYS_close_range, 4, channel_in - 1, 0);
    if (channel_in + 1 < channel_out)
        syscall(SYS_close_range, channel_in + 1, channel_out - 1, 0);
    syscall(SYS_close_range, channel_out + 1, ~0U, 0);
    fcntl(channel_in, F_SETFL, O_NONBLOCK);
    fcntl(channel_out, F_SETFL, O_NONBLOCK);
}
