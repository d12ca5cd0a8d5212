/* Stubs for what session.c needs from the rest of init: no process is started, /code and /tmp are folders of
 * the fuzzer's, and fail() jumps back. Linked with --wrap for open, rmdir, kill and waitpid. */
#ifndef CODEFORGE_SESSION_STUBS_H
#define CODEFORGE_SESSION_STUBS_H

#include "branch.h"
#include "channel.h"
#include "command.h"
#include "fail.h"
#include "fd.h"
#include "posture.h"
#include "process.h"
#include "session.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOME_PID = 42 };

#define NO_WORKER ((struct worker){.control = -1, .pipes = NO_PIPES})

struct outbox outbox;
struct worker worker = {.control = -1, .pipes = {-1, {-1, -1}}};
int channel_in = -1, channel_out = -1, process_signals = -1;
static jmp_buf gave_up;
static int interpreters[BRANCHES_MAX]; /* the other ends of their sockets; -1: none */
static int worker_end = -1;

static void take_outbox(void);

int __real_open(const char *path, int flags, ...);
int __real_rmdir(const char *path);

/* /code and /tmp as paths below the current directory. */
static const char *placed(const char *path)
{
    return path[0] == '/' && (strncmp(path, "/code", 5) == 0 || strncmp(path, "/tmp", 4) == 0) ? path + 1 : path;
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int), fd = __real_open(placed(path), flags, mode);
    va_end(rest);
    return fd;
}

int __wrap_rmdir(const char *path)
{
    return __real_rmdir(placed(path));
}

int __wrap_kill(pid_t pid, int number)
{
    HOLDS(pid > 1 || pid < -1);
    HOLDS(number == SIGKILL || number == SIGINT);
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int flags)
{
    (void)flags;
    HOLDS(pid > 1);
    *status = 0;
    return pid;
}

void fail(const char *format, ...)
{
    (void)format;
    longjmp(gave_up, 1);
}

void channel_make_room(size_t payload)
{
    if (outbox_room(&outbox) < payload)
        take_outbox();
    HOLDS(outbox_room(&outbox) >= payload);
}

void worker_start(enum worker_kind kind)
{
    int ends[2];
    if (worker.pid)
        fail("a second worker");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        abort();
    close_fd(&worker_end);
    worker_end = ends[1];
    worker = (struct worker){.pid = SOME_PID, .kind = kind, .control = ends[0], .pipes = NO_PIPES};
    command_clear(&command);
}

struct worker worker_take(void)
{
    struct worker taken = worker;
    worker = NO_WORKER;
    return taken;
}

void worker_forget(void)
{
    close_fd(&worker.control);
    worker = NO_WORKER;
}

void worker_become_branch(void)
{
    worker.task = BECOMES_BRANCH;
}

static uint32_t started;
static bool reads_at_once;

/* The worker's end of its socket becomes that of the interpreter. */
static void move_worker_end(void)
{
    close_fd(&interpreters[started]);
    interpreters[started] = worker_end;
    worker_end = -1;
}

bool worker_send(void)
{
    if (reads_at_once)
        move_worker_end();
    return reads_at_once;
}

/* Not reached: the fuzzer has its own loop. */
struct pollfd worker_poll(void)
{
    return (struct pollfd){-1, 0, 0};
}
void worker_receive(void) { }
void processes_reap(void) { }
void channel_receive(void (*obey)(const struct frame *f)) { (void)obey; }
void channel_poll(struct pollfd *fds, nfds_t count, uint64_t wake_ns) { (void)fds, (void)count, (void)wake_ns; }
void channel_flush(void) { }
uint32_t oom_kill_count(void) { return 0; }
uint32_t pids_refused_count(void) { return 0; }
void channel_wait_room(size_t payload) { channel_make_room(payload); }

#endif
