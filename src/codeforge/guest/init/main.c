/* init: PID 1 of every sandbox.
 *
 * Theory of operation
 *
 *   host --frames--> [channel in ]  init  --pipes--> the run (argv, stdin)
 *   host <--frames-- [channel out]        <--pipes-- the run (stdout, stderr)
 *                                     |
 *                                  control socket --> the worker, which becomes the run or forks it
 *
 * init sends READY with the sandbox's posture. The host may then have a WORKER started, an interpreter that
 * waits. Files, argv and environment follow, and GO. From there init carries bytes both ways until the run's
 * first process ends or the host sends KILL. Then, in this order: kill everything else, reap it, drain the
 * pipes, report how the run ended, send the files that it wrote, DONE. When the channel closes, init exits,
 * at any point, and the kernel kills the PID namespace with it.
 *
 * Instead of GO the host may send START, which begins a session (session.c): then there is no run.
 *
 * A sandbox takes one run, unless GO says to keep it. Then init removes what the run left, verifies that
 * everything is as it was before, sends CLEAN instead of DONE, and takes another run.
 *
 * The run is hostile and has init's user id. It cannot reach init, because init is PID 1 with every signal
 * at its default (the kernel then drops what the namespace sends), is not dumpable (no ptrace, no
 * /proc/1/{mem,fd,environ}), and keeps its descriptors to itself (close-on-exec). Everything that the run
 * writes is opaque bytes. Frames come from the trusted host only, and init checks them anyway.
 *
 * Modules know each other in one direction only: a file includes those below it (tests/unit/guest/
 * test_init_layers.py checks that).
 *
 *   main
 *   run       session
 *   streams   worker   clean   branch   session_files
 *   process   files   empty   limits
 *   channel   filter
 *   command   frame   names   posture   fd   clock   fail
 *
 * init allocates nothing: all memory is static and bounded. */
#include "channel.h"
#include "clean.h"
#include "clock.h"
#include "command.h"
#include "fail.h"
#include "files.h"
#include "limits.h"
#include "posture.h"
#include "process.h"
#include "run.h"
#include "session.h"
#include "streams.h"
#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool had_run; /* a run came to its end */

static struct { /* the file that DATA frames go to */
    int fd;
    size_t size;
    uint8_t path[PAYLOAD_MAX];
} input = {.fd = -1};

static void end_run(bool keep)
{
    run_end(keep);
    had_run = true;
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
    bool for_run = f->type == F_STDIN || f->type == F_KILL;
    if (had_run && !run_active() && for_run)
        return; /* the host did not know yet that the run is over */
    if (run_active() != for_run)
        fail("protocol: frame %u %s GO", f->type, run_active() ? "after" : "before");
    if (f->type != F_DATA)
        close_input();
    switch (f->type) {
    case F_LIMITS:
        limits_parse(f);
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
        run_go(f);
        break;
    case F_START:
        channel_expire_at(limits_expiry_ns(now_ns()));
        session_obey(f);
        break;
    case F_STDIN:
        streams_take_stdin(f);
        break;
    case F_KILL:
        end_run(false);
        break;
    default:
        fail("protocol: unknown frame %u", f->type);
    }
}

/* --- Start, and the loop -------------------------------------------------------------------------- */

static void process_ended(pid_t pid, int status)
{
    session_process_ended(pid, status);
    worker_process_ended(pid, status);
    run_process_ended(pid, status);
}

static void become_unreachable(void)
{
    /* By the system call, because the library's signal() refuses the two signals that it uses itself. */
    static const uint64_t default_action[8];
    for (int s = 1; s < NSIG; s++)
        syscall(SYS_rt_sigaction, s, default_action, NULL, 8);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        _exit(EXIT_FAILED);
    umask(022);
}

static _Noreturn void serve(void)
{
    enum { IN, OUT, SIGNALS, CONTROL, RUN, COUNT = RUN + STREAMS };
    for (;;) {
        if (session_active())
            session_serve();
        uint64_t wake_ns;
        struct pollfd fds[COUNT] = {
            [IN] = {channel_in, POLLIN, 0},
            [OUT] = {outbox.end ? channel_out : -1, POLLOUT, 0},
            [SIGNALS] = {process_signals, POLLIN, 0},
            [CONTROL] = worker_poll(),
        };
        streams_poll(fds + RUN, &wake_ns);
        channel_poll(fds, COUNT, wake_ns);
        if (fds[SIGNALS].revents)
            processes_reap();
        if (fds[CONTROL].revents & (POLLIN | POLLHUP | POLLERR))
            worker_receive();
        if (fds[CONTROL].revents & POLLOUT && worker.control >= 0)
            worker_send();
        if (run_ended()) {
            end_run(true);
            continue;
        }
        if (fds[IN].revents)
            channel_receive(obey);
        streams_serve(fds + RUN);
        channel_flush();
    }
}

int main(void)
{
    if (getpid() != 1) {
        /* A run ends by kill(-1), which outside of a PID namespace of its own would end everything that
         * this user runs. */
        fputs("codeforge init: must be PID 1 of its own PID namespace\n", stderr);
        return 64;
    }
    channel_take_over();
    if (chdir("/code"))
        fail("no /code: %s", strerror(errno));
    become_unreachable();
    processes_watch(process_ended);
    clean_remember();
    outbox_commit(&outbox, F_READY, posture((char *)outbox_payload(&outbox), PAYLOAD_MAX));
    serve();
}
