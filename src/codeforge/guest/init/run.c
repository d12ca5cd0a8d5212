/* The run's processes, and the worker that may become one: start, hand over, reap, kill. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

struct run run = {.in = -1, .control = -1, .out = {-1, -1}};
struct command command;
int signals;

static struct { /* argv and environment on their way to a worker */
    size_t start, end;
    char bytes[COMMAND_BYTES + 16];
} message;

void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void reaped(pid_t pid, int status)
{
    if (pid == run.pid && !run.ended) {
        run.status = status;
        run.ended = true;
    }
}

void reap(void)
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

void spawn(bool waiting)
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

void go(bool fresh)
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

bool worker_needs_telling(void)
{
    return message.start < message.end;
}

void instruct_worker(void)
{
    ssize_t n = write(run.control, message.bytes + message.start, message.end - message.start);
    if (n < 0 && errno == EAGAIN)
        return;
    message.start = n < 0 ? message.end : message.start + (size_t)n; /* it died: its exit tells */
    if (message.start == message.end)
        close_end(&run.control);
}
