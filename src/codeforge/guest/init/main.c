/* init: PID 1 of every sandbox.
 *
 * Theory of operation
 *
 *   host --frames--> [channel in ]  init  --pipes--> the run (argv, stdin)
 *   host <--frames-- [channel out]        <--pipes-- the run (stdout, stderr)
 *
 * One sandbox, one run. init says READY with the sandbox's posture; the host may have a WORKER
 * started, an interpreter that waits on a control pipe; then come files, argv and environment, and
 * GO. From there init carries bytes both ways until the run's first process ends or the host says
 * KILL. Then, in this order: kill everything else, reap it, drain the pipes, report how it ended,
 * send the files the run wrote, DONE, exit. When the channel closes, init exits at any point, and
 * the kernel kills the PID namespace with it.
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
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_FAILED = 70,              /* as sysexits.h: internal software error */
    CONTROL_FD = 3,                /* where a worker finds its control pipe */
    STDIN_WINDOW = 64 * 1024,      /* bytes the host may send beyond what was ACKed */
    ACK_BYTES = 4,
    DROPPED_STEP = 1024 * 1024,    /* dropped output is told in steps of this */
    SMALL_READ = 4096,             /* output in pieces smaller than this is ... */
    COALESCE_NS = 1000000,         /* ... gathered for a millisecond */
};

struct outbox outbox;
static struct inbox inbox;
static int channel_in, channel_out, signals;

static struct {
    uint64_t output_bytes, files_bytes;
    uint32_t files, max_age_ms;
} limits = {1024 * 1024, 16 * 1024 * 1024, 1000, 0};

static struct command command;

static struct {
    pid_t pid;    /* of its first process; 0: there is none */
    bool waiting; /* it is a worker that was not told to go yet */
    bool ended;
    int status;                 /* of its first process, as wait() gives it */
    int in, control, out[2];    /* our ends of its pipes; -1: closed */
    uint64_t sent[2], dropped[2], told[2];
    uint64_t started_ns, quiet_until_ns;
} run = {.in = -1, .control = -1, .out = {-1, -1}};

static struct { /* stdin on its way from the host to the run */
    size_t start, end;
    bool eof;
    uint8_t bytes[STDIN_WINDOW];
} feed;

static struct { /* argv and environment on their way to a worker */
    size_t start, end;
    char bytes[COMMAND_BYTES + 16];
} message;

static struct { /* the file that DATA frames go to */
    int fd;
    size_t size;
    uint8_t path[PAYLOAD_MAX];
} input = {.fd = -1};

static uint8_t scratch[PAYLOAD_MAX];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* --- The channel when there is nothing else to do but wait for the host -------------------------- */

/* Until when the host must have taken everything: then nobody is there, and init gives up. */
static int timeout_ms(uint64_t now, uint64_t wake_ns)
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
static void wait_for(struct pollfd *fds, nfds_t count, int ms)
{
    if (poll(fds, count, ms) < 0 && errno != EINTR)
        _exit(EXIT_FAILED);
}

static void channel_wait(void)
{
    struct pollfd fds[] = {{channel_out, POLLOUT, 0}, {channel_in, POLLIN, 0}};
    wait_for(fds, 2, timeout_ms(now_ns(), UINT64_MAX));
    if (fds[1].revents && read(channel_in, scratch, sizeof scratch) == 0)
        _exit(0); /* the host is gone; what it still sends a run that is over does not matter */
    if (!outbox_flush(&outbox, channel_out))
        _exit(0);
}

void channel_wait_room(size_t payload)
{
    while (outbox_room(&outbox) < payload)
        channel_wait();
}

static _Noreturn void finish(int code)
{
    while (outbox.end)
        channel_wait();
    _exit(code);
}

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...)
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

/* --- Processes --------------------------------------------------------------------------------------- */

static void reaped(pid_t pid, int status)
{
    if (pid == run.pid && !run.ended) {
        run.status = status;
        run.ended = true;
    }
}

static void reap(void)
{
    struct signalfd_siginfo ignored[8];
    while (read(signals, ignored, sizeof ignored) > 0)
        ;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        reaped(pid, status);
}

/* kill(-1) from PID 1 reaches all of the namespace at once, and a process with SIGKILL pending
 * cannot fork: when there is no child left there is nothing left. */
static void kill_everything(void)
{
    for (;;) {
        int status;
        kill(-1, SIGKILL);
        pid_t pid = waitpid(-1, &status, 0);
        if (pid > 0)
            reaped(pid, status);
        else if (errno == ECHILD)
            return;
    }
}

static void make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC))
        fail("pipe: %s", strerror(errno));
}

static _Noreturn void become_run(int in, int out, int err, int control, int broken)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    /* All ends are above CONTROL_FD: init's own 0, 1 and 2 are /dev/null, 3 is kept free. */
    int e = 0;
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || (control >= 0 && dup2(control, CONTROL_FD) < 0))
        e = errno;
    if (control < 0)
        close(CONTROL_FD);
    if (!e)
        e = command_exec(&command);
    if (write(broken, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

static void spawn(bool waiting)
{
    int in[2], out[2], err[2], control[2] = {-1, -1}, broken[2];
    if (command.argc == 0)
        fail("protocol: nothing to run");
    make_pipe(in);
    make_pipe(out);
    make_pipe(err);
    make_pipe(broken);
    if (waiting) {
        char variable[] = "CODEFORGE_CONTROL_FD=3";
        make_pipe(control);
        const char *wrong = command_env(&command, (uint8_t *)variable, sizeof variable - 1);
        if (wrong)
            fail("protocol: %s", wrong);
    }
    pid_t pid = fork();
    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0)
        become_run(in[0], out[1], err[1], control[0], broken[1]);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    close(broken[1]);
    close_end(&control[0]);
    int e;
    bool started = read(broken[0], &e, sizeof e) != sizeof e;
    if (!started && e < 0)
        fail("cannot start in %s: %s", command.cwd, strerror(-e));
    if (!started)
        fail("cannot run %s: %s", command.argv[0], strerror(e));
    close(broken[0]);
    run.pid = pid;
    run.waiting = waiting;
    run.in = in[1];
    run.out[0] = out[0];
    run.out[1] = err[0];
    run.control = control[1];
    fcntl(run.in, F_SETFL, O_NONBLOCK);
    fcntl(run.out[0], F_SETFL, O_NONBLOCK);
    fcntl(run.out[1], F_SETFL, O_NONBLOCK);
    if (waiting)
        fcntl(run.control, F_SETFL, O_NONBLOCK);
    command_clear(&command);
}

static void drop_worker(void)
{
    kill_everything();
    run.pid = 0;
    run.waiting = run.ended = false;
    close_end(&run.in);
    close_end(&run.control);
    close_end(&run.out[0]);
    close_end(&run.out[1]);
}

static void go(bool fresh)
{
    uint64_t started_ns = now_ns();
    if (run.waiting && (fresh || run.ended))
        drop_worker();
    if (command.argc == 0)
        fail("protocol: nothing to run");
    if (run.waiting) {
        message.end = command_message(&command, message.bytes, sizeof message.bytes);
        if (message.end == 0)
            fail("protocol: too many arguments or variables");
        run.waiting = false;
    } else
        spawn(false);
    run.started_ns = started_ns;
}

/* --- Bytes between the host and the run --------------------------------------------------------------- */

/* Moves one piece of the run's output; false when there is nothing now or no more ever. */
static bool pump(int stream)
{
    uint64_t keep = limits.output_bytes - run.sent[stream];
    size_t room = outbox_room(&outbox);
    if (keep && room == 0)
        return false;
    uint8_t *into = keep ? outbox_payload(&outbox) : scratch;
    size_t want = keep == 0 ? sizeof scratch : keep < room ? (size_t)keep : room;
    ssize_t n = read(run.out[stream], into, want);
    if (n == 0)
        close_end(&run.out[stream]);
    if (n <= 0)
        return false;
    if (keep) {
        outbox_commit(&outbox, stream ? F_STDERR : F_STDOUT, (size_t)n);
        run.sent[stream] += (uint64_t)n;
    } else
        run.dropped[stream] += (uint64_t)n;
    if (n < SMALL_READ)
        run.quiet_until_ns = now_ns() + COALESCE_NS;
    return true;
}

static void tell_dropped(int stream, uint64_t step)
{
    uint64_t more = run.dropped[stream] - run.told[stream];
    if (more < step || outbox_room(&outbox) < 9)
        return;
    uint8_t *p = outbox_payload(&outbox);
    *p = (uint8_t)(stream + 1);
    put_u64(p + 1, more);
    outbox_commit(&outbox, F_DROPPED, 9);
    run.told[stream] = run.dropped[stream];
}

/* Only with room for the ACK: waiting for it would mean not to listen to the host. */
static void feed_run(void)
{
    size_t had = feed.end - feed.start;
    ssize_t n = run.in < 0 ? (ssize_t)had : write(run.in, feed.bytes + feed.start, had);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0) { /* it closed its stdin: swallow the rest, the host need not know */
        close_end(&run.in);
        n = (ssize_t)had;
    }
    feed.start += (size_t)n;
    if (feed.start == feed.end) {
        feed.start = feed.end = 0;
        if (feed.eof)
            close_end(&run.in);
    }
    uint8_t ack[ACK_BYTES];
    put_u32(ack, (uint32_t)n);
    outbox_put(&outbox, F_ACK, ack, sizeof ack);
}

static void take_stdin(const struct frame *f)
{
    if (feed.eof || f->size > STDIN_WINDOW - (feed.end - feed.start))
        fail("protocol: stdin beyond its window");
    memmove(feed.bytes, feed.bytes + feed.start, feed.end - feed.start);
    feed.end -= feed.start;
    feed.start = 0;
    memcpy(feed.bytes + feed.end, f->payload, f->size);
    feed.end += f->size;
    feed.eof = f->size == 0;
    if (feed.eof && feed.end == 0)
        close_end(&run.in);
}

static void instruct_worker(void)
{
    ssize_t n = write(run.control, message.bytes + message.start, message.end - message.start);
    if (n < 0 && errno == EAGAIN)
        return;
    message.start = n < 0 ? message.end : message.start + (size_t)n; /* it died: its exit tells */
    if (message.start == message.end)
        close_end(&run.control);
}

/* --- The end ---------------------------------------------------------------------------------------------- */

static uint64_t microseconds(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void report_exit(uint64_t ended_ns)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    channel_wait_room(64);
    uint8_t *start = outbox_payload(&outbox), *p = start;
    *p++ = WIFSIGNALED(run.status);
    *p++ = (uint8_t)(WIFSIGNALED(run.status) ? WTERMSIG(run.status) : WEXITSTATUS(run.status));
    p = put_u64(p, (ended_ns - run.started_ns) / 1000);
    p = put_u64(p, microseconds(usage.ru_utime));
    p = put_u64(p, microseconds(usage.ru_stime));
    p = put_u64(p, memory_peak_bytes());
    p = put_u32(p, oom_kill_count());
    outbox_commit(&outbox, F_EXIT, (size_t)(p - start));
}

static _Noreturn void end_run(void)
{
    uint64_t ended_ns = now_ns();
    kill_everything();
    for (int stream = 0; stream < 2; stream++) {
        while (run.out[stream] >= 0)
            if (!pump(stream) && run.out[stream] >= 0)
                channel_wait(); /* every writer is dead: what is missing is room, not bytes */
        channel_wait_room(16);
        tell_dropped(stream, 1);
    }
    report_exit(ended_ns);
    files_collect(limits.files_bytes, limits.files);
    channel_wait_room(0);
    outbox_put(&outbox, F_DONE, "", 0);
    finish(0);
}

/* --- Frames from the host ------------------------------------------------------------------------------------ */

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
    bool running = run.started_ns != 0;
    if (running != (f->type == F_STDIN || f->type == F_KILL))
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
        if (run.pid)
            fail("protocol: a second worker");
        spawn(true);
        break;
    case F_FILE:
        open_input(f);
        break;
    case F_DATA:
        write_input(f);
        break;
    case F_GO:
        go(f->size == 1 && f->payload[0]);
        break;
    case F_STDIN:
        take_stdin(f);
        break;
    case F_KILL:
        end_run();
    default:
        fail("protocol: unknown frame %u", f->type);
    }
}

static void listen_to_host(void)
{
    size_t room;
    uint8_t *into = inbox_room(&inbox, &room);
    ssize_t n = read(channel_in, into, room);
    if (n == 0)
        _exit(0);
    if (n < 0)
        return;
    inbox.end += (size_t)n;
    struct frame f;
    enum inbox_state state;
    while ((state = inbox_next(&inbox, &f)) == INBOX_FRAME)
        obey(&f);
    if (state == INBOX_BAD)
        fail("protocol: frame of %u bytes", f.size);
}

/* --- Start, and the loop ------------------------------------------------------------------------------------------ */

static void take_over_channel(void)
{
    /* High numbers, so that none is in the way of the run's 0 to 3. */
    channel_in = fcntl(0, F_DUPFD_CLOEXEC, 10);
    channel_out = fcntl(1, F_DUPFD_CLOEXEC, 10);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
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

static void become_unreachable(void)
{
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
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
        uint64_t now = now_ns();
        bool running = run.started_ns != 0;
        bool quiet = running && run.quiet_until_ns > now;
        bool listen = running && !quiet && outbox_room(&outbox) >= SMALL_READ;
        struct pollfd fds[COUNT] = {
            [IN] = {channel_in, POLLIN, 0},
            [OUT] = {outbox.end ? channel_out : -1, POLLOUT, 0},
            [SIGNALS] = {signals, POLLIN, 0},
            [FEED] = {feed.end && outbox_room(&outbox) >= ACK_BYTES ? run.in : -1, POLLOUT, 0},
            [CONTROL] = {message.start < message.end ? run.control : -1, POLLOUT, 0},
            [STDOUT] = {listen ? run.out[0] : -1, POLLIN, 0},
            [STDERR] = {listen ? run.out[1] : -1, POLLIN, 0},
        };
        wait_for(fds, COUNT, timeout_ms(now, quiet ? run.quiet_until_ns : UINT64_MAX));
        if (fds[SIGNALS].revents)
            reap();
        if (running && run.ended)
            end_run();
        if (fds[IN].revents)
            listen_to_host();
        if (fds[CONTROL].revents)
            instruct_worker();
        if (fds[FEED].revents || (feed.end && run.in < 0 && outbox_room(&outbox) >= ACK_BYTES))
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
    outbox_commit(&outbox, F_READY, posture((char *)outbox_payload(&outbox), PAYLOAD_MAX));
    serve();
}
