/* What session.c needs of the rest of init, played: no process is started, /code and /tmp are folders of
 * the fuzzer's, and giving up is a jump back. Linked with --wrap for open, rmdir, kill and waitpid. */
#ifndef CODEFORGE_SESSION_STUBS_H
#define CODEFORGE_SESSION_STUBS_H

#include "branch.h"
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOME_PID = 42 };

struct outbox outbox;
struct run run = {.in = -1, .out = {-1, -1}};
struct worker worker = {.control = -1};
struct command command;
struct limits limits;
int channel_in = -1, channel_out = -1, signals = -1;
static jmp_buf gave_up;
static int interpreters[BRANCHES_MAX]; /* the other ends of their sockets; -1: none */
static int worker_end = -1;

static void take_outbox(void);

int __real_open(const char *path, int flags, ...);
int __real_rmdir(const char *path);

/* In the sandbox these are places of its own. */
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

void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
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

uint64_t now_ns(void)
{
    return 1;
}

void worker_start(enum worker_kind kind)
{
    int ends[2];
    if (worker.pid)
        fail("a second worker");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        abort();
    close_end(&worker_end);
    worker_end = ends[1];
    worker = (struct worker){.pid = SOME_PID, .kind = kind, .control = ends[0]};
    command_clear(&command);
}

void worker_hang_up(void)
{
    close_end(&worker.control);
    worker = (struct worker){.control = -1};
}

void worker_become_branch(void)
{
    worker.becomes_branch = true;
}

static uint32_t started;
static bool hears_at_once;

void worker_tell(void)
{
    if (!hears_at_once)
        return;
    session_adopt_worker();
    close_end(&interpreters[started]);
    interpreters[started] = worker_end;
    worker_end = -1;
}

/* Not reached: the fuzzer has a loop of its own. */
struct pollfd worker_poll(void)
{
    return (struct pollfd){-1, 0, 0};
}
void worker_hear(void) { }
void reap(void) { }
void listen_to_host(void) { }
void wait_for(struct pollfd *fds, nfds_t count, int ms) { (void)fds, (void)count, (void)ms; }
int timeout_ms(uint64_t now, uint64_t wake_ns) { return (void)now, (void)wake_ns, 0; }
uint32_t oom_kill_count(void) { return 0; }
uint32_t pids_refused_count(void) { return 0; }
uint64_t socket_count(uint64_t *ports) { return *ports = 0; }
uint64_t task_count(void) { return 0; }
void channel_wait_room(size_t payload) { channel_make_room(payload); }

#endif
