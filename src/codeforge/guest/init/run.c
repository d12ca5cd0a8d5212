/* The run's processes: start, reap, kill. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    KILL_NS = 500 * 1000 * 1000, /* after this a run that forks faster than it dies has won */
    REAP_MAX = 256,              /* at once: a run can make orphans without end */
};

struct run run = {.in = -1, .out = {-1, -1}};
struct command command;
int signals;

static struct { /* CPU time at GO, so that starting and preloading are not the run's */
    uint64_t children_us, worker_us, reported_us;
} before;

void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void close_run(void)
{
    close_end(&run.in);
    close_end(&run.out[0]);
    close_end(&run.out[1]);
    run = (struct run){.in = -1, .out = {-1, -1}};
}

/* --- CPU time ------------------------------------------------------------------------------------- */

static uint64_t microseconds(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static uint64_t children_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
}

static uint64_t worker_cpu_us(void)
{
    clockid_t clock;
    struct timespec t;
    if (!worker.pid || worker.ended || clock_getcpuclockid(worker.pid, &clock) || clock_gettime(clock, &t))
        return 0;
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000;
}

uint64_t run_cpu_us(void)
{
    uint64_t used = children_cpu_us() - before.children_us;
    if (worker.pid && !worker.ended)
        return used + worker.reported_us - before.reported_us;
    /* A dead worker counts among the children, with all that it ever did and reaped. */
    uint64_t not_the_run = before.worker_us + before.reported_us;
    return used > not_the_run ? used - not_the_run : 0;
}

/* --- The ends of processes ------------------------------------------------------------------------ */

static void reaped(pid_t pid, int status)
{
    session_reaped(pid, status);
    if (pid == worker.pid) {
        worker.ended = true;
        worker.status = status;
    }
    bool first = pid == run.pid || (pid == worker.pid && run.started_ns);
    if (first && !run.ended) {
        run.status = status;
        run.ended = true;
    }
}

void reap(void)
{
    struct signalfd_siginfo ignored;
    int status, count = 0;
    if (read(signals, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
        fail("signalfd: %s", strerror(errno));
    for (pid_t pid; count < REAP_MAX && (pid = waitpid(-1, &status, WNOHANG)) > 0; count++)
        reaped(pid, status);
    if (count == REAP_MAX)
        raise(SIGCHLD); /* for signalfd: there may be more */
}

/* kill(-1) from PID 1 reaches all of the namespace at once, and a process with SIGKILL pending
 * cannot fork: when there is no child left there is nothing left. */
void kill_everything(void)
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

/* How many processes but init and the template it has come across; they die of it. */
static int kill_others(void)
{
    struct names names = {.dir = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    int found = 0;
    if (names.dir < 0)
        return -1;
    for (const char *name; (name = next_name(&names));) {
        pid_t pid = (pid_t)strtol(name, NULL, 10);
        if (pid > 1 && pid != worker.pid) {
            kill(pid, SIGKILL);
            found++;
        }
    }
    close(names.dir);
    return found;
}

/* Two looks at /proc could both miss a process that forks at the right moments; the kernel's count
 * cannot. */
static bool only_template_left(void)
{
    uint64_t tasks = task_count();
    return tasks ? tasks == 2 : kill_others() == 0;
}

bool kill_run(void)
{
    if (worker.ended)
        return false;
    for (uint64_t until = now_ns() + KILL_NS; now_ns() < until;) {
        int found = kill_others();
        reap();
        if (found < 0 || worker.ended)
            return false;
        if (found == 0 && only_template_left())
            return true;
        struct timespec moment = {0, 100 * 1000};
        nanosleep(&moment, NULL);
    }
    return false;
}

/* --- Their beginning ------------------------------------------------------------------------------ */

static void make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC))
        fail("pipe: %s", strerror(errno));
}

void open_pipes(int theirs[3])
{
    int in[2], out[2], err[2];
    make_pipe(in);
    make_pipe(out);
    make_pipe(err);
    theirs[0] = in[0];
    theirs[1] = out[1];
    theirs[2] = err[1];
    run.in = in[1];
    run.out[0] = out[0];
    run.out[1] = err[0];
    fcntl(run.in, F_SETFL, O_NONBLOCK);
    fcntl(run.out[0], F_SETFL, O_NONBLOCK);
    fcntl(run.out[1], F_SETFL, O_NONBLOCK);
}

static _Noreturn void become_command(int in, int out, int err, int control, bool template, int broken)
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
    if (!e && !filter_install(template ? RUN_TEMPLATE : RUN))
        e = errno;
    if (!e)
        e = command_exec(&command);
    if (write(broken, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

pid_t start_command(int in, int out, int err, int control, bool template)
{
    int broken[2], e;
    if (command.argc == 0)
        fail("protocol: nothing to run");
    make_pipe(broken);
    pid_t pid = fork();
    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0)
        become_command(in, out, err, control, template, broken[1]);
    close(broken[1]);
    bool started = read(broken[0], &e, sizeof e) != sizeof e;
    if (!started && e < 0)
        fail("cannot start in %s: %s", command.cwd, strerror(-e));
    if (!started)
        fail("cannot run %s: %s", command.argv[0], strerror(e));
    close(broken[0]);
    command_clear(&command);
    return pid;
}

static void start_run(void)
{
    int theirs[3];
    open_pipes(theirs);
    run.pid = start_command(theirs[0], theirs[1], theirs[2], -1, false);
    for (int i = 0; i < 3; i++)
        close(theirs[i]);
}

/* The worker, and the pipes that it waited with. */
static void drop_waiting(void)
{
    worker_drop();
    close_run();
}

void go(uint8_t flags, const uint8_t token[TOKEN_BYTES])
{
    uint64_t started_ns = now_ns();
    reap();
    if (worker.pid && (worker.ended || worker.control < 0 || flags & GO_FRESH))
        drop_waiting();
    if (command.argc == 0)
        fail("protocol: nothing to run");
    before.children_us = children_cpu_us();
    before.worker_us = worker_cpu_us();
    before.reported_us = worker.reported_us;
    if (!worker.pid)
        start_run();
    else if (worker.kind == ONE_RUN)
        worker_become_run();
    else {
        int theirs[3];
        open_pipes(theirs);
        worker_fork_run(theirs);
    }
    run.keep = flags & GO_KEEP;
    memcpy(run.token, token, TOKEN_BYTES);
    run.oom_kills = oom_kill_count();
    run.pids_refused = pids_refused_count();
    run.started_ns = started_ns;
}
