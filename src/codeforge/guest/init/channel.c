/* The channel to the host, the one clock, and the ways for init to end. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const uint64_t LINGER_NS = 5000u * 1000 * 1000u;

int channel_in, channel_out;
struct inbox inbox;
struct outbox outbox;

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Until when the host must have taken everything: then nobody is there, and init gives up. */
int timeout_ms(uint64_t now, uint64_t wake_ns)
{
    uint64_t until = UINT64_MAX;
    if (run.started_ns && limits.max_age_ms)
        until = run.started_ns + limits.max_age_ms * (uint64_t)1000000;
    if (until <= now)
        _exit(EXIT_FAILED);
    if (wake_ns < until)
        until = wake_ns;
    return until == UINT64_MAX ? -1 : (int)((until - now) / 1000000 + 1);
}

/* poll() has no room for its descriptors when the run took init's RLIMIT_NOFILE away, as its own
 * user id may: the sandbox is of no use any more. */
void wait_for(struct pollfd *fds, nfds_t count, int ms)
{
    if (poll(fds, count, ms) < 0 && errno != EINTR)
        _exit(EXIT_FAILED);
}

bool channel_read(void)
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

void channel_wait(void)
{
    struct pollfd fds[] = {{outbox.end ? channel_out : -1, POLLOUT, 0}, {channel_in, POLLIN, 0}};
    wait_for(fds, 2, timeout_ms(now_ns(), UINT64_MAX));
    struct frame dropped; /* said to a run that is over */
    if (fds[1].revents && channel_read())
        while (inbox_next(&inbox, &dropped) == INBOX_FRAME)
            ;
    if (!outbox_flush(&outbox, channel_out))
        _exit(0);
}

void channel_wait_room(size_t payload)
{
    while (outbox_room(&outbox) < payload)
        channel_wait();
}

void channel_make_room(size_t payload)
{
    while (outbox_room(&outbox) < payload) {
        struct pollfd out = {channel_out, POLLOUT, 0};
        wait_for(&out, 1, timeout_ms(now_ns(), UINT64_MAX));
        if (!outbox_flush(&outbox, channel_out))
            _exit(0);
    }
}

/* Stays until the host hangs up: with init goes the container, and an engine may then lose what was said
 * last, or not hear any more of an out-of-memory kill in a control group that is gone. */
_Noreturn void finish(int code)
{
    static uint8_t dropped[4096];
    while (outbox.end)
        channel_wait();
    for (uint64_t now, until = now_ns() + LINGER_NS; (now = now_ns()) < until;) {
        struct pollfd in = {channel_in, POLLIN, 0};
        wait_for(&in, 1, (int)((until - now) / 1000000 + 1));
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

void take_over_channel(void)
{
    /* High numbers, so that none is in the way of the run's 0 to 3. */
    channel_in = fcntl(0, F_DUPFD_CLOEXEC, 10);
    channel_out = fcntl(1, F_DUPFD_CLOEXEC, 10);
    int null = open("/dev/null", O_RDWR);
    if (channel_in < 0 || channel_out < 0 || null < 0)
        _exit(EXIT_FAILED);
    for (int fd = 0; fd <= CONTROL_FD; fd++)
        if (fd != null && dup2(null, fd) < 0)
            _exit(EXIT_FAILED);
    fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC); /* a place holder, so that pipes come above it */
    syscall(SYS_close_range, 4, channel_in - 1, 0);
    if (channel_in + 1 < channel_out)
        syscall(SYS_close_range, channel_in + 1, channel_out - 1, 0);
    syscall(SYS_close_range, channel_out + 1, ~0U, 0);
    fcntl(channel_in, F_SETFL, O_NONBLOCK);
    fcntl(channel_out, F_SETFL, O_NONBLOCK);
}
