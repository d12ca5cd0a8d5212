/* init: PID 1 of every sandbox.
 *
 * Theory of operation
 *
 *   host --frames--> [channel in ]  init  --pipes--> the run (argv, stdin)
 *   host <--frames-- [channel out]        <--pipes-- the run (stdout, stderr)
 *                                     |
 *                                  control socket --> the worker, which becomes the run or forks it
 *
 * init says READY with the sandbox's posture; the host may have a WORKER started, an interpreter that
 * waits; then come files, argv and environment, and GO. From there init carries bytes both ways until
 * the run's first process ends or the host says KILL. Then, in this order: kill everything else, reap
 * it, drain the pipes, report how it ended, send the files the run wrote, DONE. When the channel
 * closes, init exits at any point, and the kernel kills the PID namespace with it.
 *
 * Instead of GO the host may say START: that begins a session (session.c), and there is no run then.
 *
 * One sandbox, one run; unless GO said to keep the sandbox. Then what the run left is removed, and when
 * everything is verified to be as it was, init says CLEAN and not DONE, and listens for another run.
 *
 * The run is hostile and has init's user id. It cannot reach init because init is PID 1 with every
 * signal at its default (the kernel then drops what the namespace sends), is not dumpable (no
 * ptrace, no /proc/1/{mem,fd,environ}), and keeps its descriptors to itself (close-on-exec). What
 * the run writes is opaque bytes. Frames come from the trusted host only, and are checked anyway.
 *
 * Nothing here allocates: all memory is static and bounded. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DROPPED_STEP = 1024 * 1024 /* dropped output is told in steps of this */ };

struct limits limits = {1024 * 1024, 16 * 1024 * 1024, 1000, 0};
static bool over; /* there was a run, and it is over */

static struct { /* the file that DATA frames go to */
    int fd;
    size_t size;
    uint8_t path[PAYLOAD_MAX];
} input = {.fd = -1};

/* --- The end -------------------------------------------------------------------------------------- */

static void report_exit(uint64_t ended_ns, uint32_t oom_kills, uint32_t pids_refused)
{
    channel_wait_room(64);
    uint8_t *start = outbox_payload(&outbox), *p = start;
    *p++ = WIFSIGNALED(run.status);
    *p++ = (uint8_t)(WIFSIGNALED(run.status) ? WTERMSIG(run.status) : WEXITSTATUS(run.status));
    p = put_u64(p, (ended_ns - run.started_ns) / 1000);
    p = put_u64(p, run_cpu_us());
    p = put_u64(p, memory_peak_bytes());
    p = put_u32(p, oom_kills);
    p = put_u32(p, pids_refused);
    memcpy(p, run.token, TOKEN_BYTES);
    p += TOKEN_BYTES;
    outbox_commit(&outbox, F_EXIT, (size_t)(p - start));
}

/* Every writer is dead, so what is in the pipe now is all. Its end may not come for a while: the kernel
 * frees descriptors that were on their way through a socket when it finds the time. */
static void drain(int stream)
{
    do
        channel_wait_room(16);
    while (run.out[stream] >= 0 && pump(stream));
    channel_wait_room(16);
    tell_dropped(stream, 1);
}

static void forget_run(void)
{
    close_run();
    feed_forget();
    files_forget();
    over = true;
}

/* Returns only if the sandbox is as if there had been no run. */
static void end_run(bool keep)
{
    uint64_t ended_ns = now_ns();
    bool template = worker.pid && worker.kind == TEMPLATE, lost = template && worker.ended;
    keep = keep && run.keep && (!template || kill_run());
    if (!keep || !template)
        worker_drop();
    uint32_t oom_kills = oom_kill_count() - run.oom_kills;
    uint32_t pids_refused = pids_refused_count() - run.pids_refused;
    if (lost && !oom_kills)
        fail("the template ended");
    drain(0);
    drain(1);
    report_exit(ended_ns, oom_kills, pids_refused);
    files_collect(limits.files_bytes, limits.files);
    channel_wait_room(1);
    if (!keep || oom_kills || clean()) {
        outbox_put(&outbox, F_DONE, "", 0);
        finish(0);
    }
    forget_run();
    outbox_put(&outbox, F_CLEAN, "", 0);
}

/* --- Frames from the host ------------------------------------------------------------------------- */

static void close_input(void)
{
    if (input.fd >= 0)
        file_close(input.fd, input.path, input.size);
    input.fd = -1;
}

static void open_input(const struct frame *f)
{
    close_input();
    if (f->size < 5)
        fail("protocol: file without a name");
    input.size = f->size - 4;
    memcpy(input.path, f->payload + 4, input.size);
    input.fd = file_create(input.path, input.size, get_u32(f->payload));
    if (input.fd < 0)
        fail("cannot write %.*s: %s", (int)(input.size < 200 ? input.size : 200), input.path, strerror(errno));
}

static void write_input(const struct frame *f)
{
    if (input.fd < 0)
        fail("protocol: data without a file");
    for (size_t at = 0; at < f->size;) {
        ssize_t n = write(input.fd, f->payload + at, f->size - at);
        if (n < 0)
            fail("cannot write %.*s: %s", (int)(input.size < 200 ? input.size : 200), input.path, strerror(errno));
        at += (size_t)n;
    }
}

static void set_limits(const struct frame *f)
{
    if (f->size != 24)
        fail("protocol: limits of the wrong size");
    limits.output_bytes = get_u64(f->payload);
    limits.files_bytes = get_u64(f->payload + 8);
    limits.files = get_u32(f->payload + 16);
    limits.max_age_ms = get_u32(f->payload + 20);
}

static void require(const char *wrong)
{
    if (wrong)
        fail("protocol: %s", wrong);
}

static void obey(const struct frame *f)
{
    if (session_active()) {
        session_obey(f);
        return;
    }
    bool running = run.started_ns != 0, for_run = f->type == F_STDIN || f->type == F_KILL;
    if (over && !running && for_run)
        return; /* the host could not know yet that it is over */
    if (running != for_run)
        fail("protocol: frame %u %s GO", f->type, running ? "after" : "before");
    if (f->type != F_DATA)
        close_input();
    switch (f->type) {
    case F_LIMITS:
        set_limits(f);
        break;
    case F_ARG:
        require(command_arg(&command, f->payload, f->size));
        break;
    case F_ENV:
        require(command_env(&command, f->payload, f->size));
        break;
    case F_CWD:
        require(command_cwd(&command, f->payload, f->size));
        break;
    case F_WORKER:
        worker_start(f->size == 1 && f->payload[0] ? TEMPLATE : ONE_RUN);
        break;
    case F_PRELOAD:
        worker_preload(f);
        break;
    case F_FILE:
        open_input(f);
        break;
    case F_DATA:
        write_input(f);
        break;
    case F_GO:
        if (f->size != 1 + TOKEN_BYTES)
            fail("protocol: GO of the wrong size");
        go(f->payload[0], f->payload + 1);
        break;
    case F_START:
        session_obey(f);
        break;
    case F_STDIN:
        take_stdin(f);
        break;
    case F_KILL:
        end_run(false);
        break;
    default:
        fail("protocol: unknown frame %u", f->type);
    }
}

void listen_to_host(void)
{
    if (!channel_read())
        return;
    struct frame f;
    enum inbox_state state;
    while ((state = inbox_next(&inbox, &f)) == INBOX_FRAME)
        obey(&f);
    if (state == INBOX_BAD)
        fail("protocol: frame of %u bytes", f.size);
}

/* --- Start, and the loop -------------------------------------------------------------------------- */

static void become_unreachable(void)
{
    /* By the system call: the library's signal() refuses the two that it keeps for itself. */
    static const uint64_t default_action[8];
    for (int s = 1; s < NSIG; s++)
        syscall(SYS_rt_sigaction, s, default_action, NULL, 8);
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_SETMASK, &set, NULL);
    signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    struct rlimit none = {0, 0};
    if (signals < 0 || setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        _exit(EXIT_FAILED);
    umask(022);
}

static _Noreturn void serve(void)
{
    enum { IN, OUT, SIGNALS, FEED, CONTROL, STDOUT, STDERR, COUNT };
    for (;;) {
        if (session_active())
            serve_session();
        uint64_t now = now_ns();
        bool running = run.started_ns != 0;
        bool quiet = running && run.quiet_until_ns > now;
        bool listen = running && !quiet && outbox_room(&outbox) >= ROOM_TO_LISTEN;
        struct pollfd fds[COUNT] = {
            [IN] = {channel_in, POLLIN, 0},
            [OUT] = {outbox.end ? channel_out : -1, POLLOUT, 0},
            [SIGNALS] = {signals, POLLIN, 0},
            [FEED] = {feed_pending() ? run.in : -1, POLLOUT, 0},
            [CONTROL] = worker_poll(),
            [STDOUT] = {listen ? run.out[0] : -1, POLLIN, 0},
            [STDERR] = {listen ? run.out[1] : -1, POLLIN, 0},
        };
        wait_for(fds, COUNT, timeout_ms(now, quiet ? run.quiet_until_ns : UINT64_MAX));
        if (fds[SIGNALS].revents)
            reap();
        if (fds[CONTROL].revents & (POLLIN | POLLHUP | POLLERR))
            worker_hear();
        if (fds[CONTROL].revents & POLLOUT && worker.control >= 0)
            worker_tell();
        if (running && run.ended) {
            end_run(true);
            continue;
        }
        if (fds[IN].revents)
            listen_to_host();
        if (fds[FEED].revents || (feed_pending() && run.in < 0))
            feed_run();
        for (int stream = 0; stream < 2; stream++) {
            if (fds[STDOUT + stream].revents)
                pump(stream);
            tell_dropped(stream, DROPPED_STEP);
        }
        if (!outbox_flush(&outbox, channel_out))
            _exit(0);
    }
}

int main(void)
{
    if (getpid() != 1) {
        /* kill(-1) is how a run is ended: anywhere but in a PID namespace of its own it would
         * end everything this user runs. */
        fputs("codeforge init: must be PID 1 of its own PID namespace\n", stderr);
        return 64;
    }
    take_over_channel();
    if (chdir("/code"))
        fail("no /code: %s", strerror(errno));
    become_unreachable();
    clean_remember();
    outbox_commit(&outbox, F_READY, posture((char *)outbox_payload(&outbox), PAYLOAD_MAX));
    serve();
}
