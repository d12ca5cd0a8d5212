/* Processes: starting, reaping and killing them. */
#include "process.h"

#include "fail.h"
#include "fd.h"
#include "filter.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REAP_MAX = 256 /* in one go: a run can make orphans without end */ };

int process_signals;
static void (*child_ended)(pid_t pid, int status);

void processes_watch(void (*ended)(pid_t pid, int status))
{
    sigset_t set;
    child_ended = ended;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_SETMASK, &set, NULL);
    process_signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (process_signals < 0)
        fail("signalfd: %s", strerror(errno));
}

static uint64_t microseconds(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

uint64_t children_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
}

/* --- The end -------------------------------------------------------------------------------------- */

void processes_reap(void)
{
    struct signalfd_siginfo ignored;
    int status, count = 0;
    if (read(process_signals, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
        fail("signalfd: %s", strerror(errno));
    for (pid_t pid; count < REAP_MAX && (pid = waitpid(-1, &status, WNOHANG)) > 0; count++)
        child_ended(pid, status);
    if (count == REAP_MAX)
        raise(SIGCHLD); /* for signalfd: there may be more */
}

/* kill(-1) from PID 1 reaches the whole namespace at once, and a process with SIGKILL pending cannot
 * fork: once no child is left, nothing is left. */
void processes_kill_all(void)
{
    for (;;) {
        int status;
        kill(-1, SIGKILL);
        pid_t pid = waitpid(-1, &status, 0);
        if (pid > 0)
            child_ended(pid, status);
        else if (errno == ECHILD)
            return;
    }
}

int processes_kill_others(pid_t spared)
{
    struct names names = {.dir = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    int found = 0;
    if (names.dir < 0)
        return -1;
    for (const char *name; (name = next_name(&names));) {
        pid_t pid = (pid_t)strtol(name, NULL, 10);
        if (pid > 1 && pid != spared) {
            kill(pid, SIGKILL);
            found++;
        }
    }
    close_fd(&names.dir);
    return found;
}

/* --- The start ------------------------------------------------------------------------------------ */

static _Noreturn void become(struct command *c, const int stdio[3], int control, bool template, int failure)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    /* All these descriptors are above CONTROL_FD: init's own 0 to 3 are taken by /dev/null. */
    int e = 0;
    for (int i = 0; i < 3; i++)
        if (dup2(stdio[i], i) < 0)
            e = errno;
    if (control >= 0 && dup2(control, CONTROL_FD) < 0)
        e = errno;
    if (control < 0)
        close(CONTROL_FD);
    if (!e && !filter_install(template ? RUN_TEMPLATE : RUN))
        e = errno;
    if (!e)
        e = command_exec(c);
    if (write(failure, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

pid_t process_start(struct command *c, const int stdio[3], int control, bool template)
{
    int failure[2], e; /* a pipe that closes at exec, or brings errno */
    if (c->argc == 0)
        fail("protocol: nothing to run");
    if (pipe2(failure, O_CLOEXEC))
        fail("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0)
        become(c, stdio, control, template, failure[1]);
    close(failure[1]);
    bool started = read(failure[0], &e, sizeof e) != sizeof e;
    if (!started && e < 0)
        fail("cannot start in %s: %s", c->cwd, strerror(-e));
    if (!started)
        fail("cannot run %s: %s", c->argv[0], strerror(e));
    close(failure[0]);
    command_clear(c);
    return pid;
}
