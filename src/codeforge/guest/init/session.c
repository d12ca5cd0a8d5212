/* Sessions: interpreters that stay, each with pipes for its output and a socket for messages.
 *
 * A session's first interpreter is branch 0. It can be asked to fork: the copy is another branch, with pipes,
 * a socket and files of its own. The sandbox is theirs until the host closes the channel; no run follows.
 *
 * init carries bytes. Messages on a socket are between the host and the interpreter (see docs/protocol.md).
 * init itself sends only FORK, because descriptors go with it. Nothing that an interpreter says can be
 * trusted: its program shares the process with it. branch.c moves the bytes. */
#include "session.h"

#include "branch.h"
#include "channel.h"
#include "clock.h"
#include "command.h"
#include "empty.h"
#include "fail.h"
#include "fd.h"
#include "process.h"
#include "session_files.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { W_FORK = 'f' };

static bool active;
static uint32_t starting; /* the branch that the worker becomes */

bool session_active(void)
{
    return active;
}

/* --- Start and end ---------------------------------------------------------------------------- */

static struct branch *branch_at(const uint8_t *number)
{
    uint32_t n = get_u32(number);
    if (n >= BRANCHES_MAX)
        fail("protocol: branch %u", n);
    return branches + n;
}

/* Makes or opens a directory of init's own. An error if the program put something else there. */
static int open_own(int dir, const char *name)
{
    if (mkdirat(dir, name, 0700) && errno != EEXIST)
        return -1;
    return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int open_files(uint32_t number)
{
    char name[16];
    if (number == 0)
        return open("/code", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int all = open_own(tmp, ".branches");
    snprintf(name, sizeof name, "%u", number);
    int dir = all < 0 ? -1 : open_own(all, name);
    close_fd(&tmp);
    close_fd(&all);
    return dir;
}

static void adopt_worker(void)
{
    struct branch *b = branches + starting;
    struct worker w = worker_take();
    b->pid = w.pid;
    b->ended = w.ended;
    b->status = w.status;
    b->control = w.control;
    memcpy(b->out, w.pipes.out, sizeof b->out);
    close_fd(&w.pipes.in);
}

/* The worker died before it could become the branch. */
static bool start_failed(void)
{
    return worker.task == BECOMES_BRANCH && (worker.ended || worker.control < 0);
}

static void conclude_start(void)
{
    struct branch *b = branches + starting;
    adopt_worker();
    if (!b->ended)
        branch_hung_up(b);
    branch_conclude(b);
}

static void send_to_worker(void)
{
    if (worker_send() && worker.task == BECOMES_BRANCH)
        adopt_worker();
}

static void start(struct branch *b)
{
    if (!worker.pid || worker.kind != ONE_RUN || worker.task != WAITS || b->attached)
        fail("protocol: no worker to start, or branch %u is there", branch_number(b));
    if (!b->exists)
        b->files = open_files(branch_number(b));
    if (b->files < 0)
        fail("no files of branch %u: %s", branch_number(b), strerror(errno));
    branch_attach(b);
    active = true;
    starting = branch_number(b);
    worker_become_branch();
    send_to_worker(); /* now, so that the host may start another worker right after this one */
    if (start_failed())
        conclude_start();
    else if (b->ended)
        branch_conclude(b);
}

static void remove_files(struct branch *b)
{
    char path[32];
    empty_directory(b->files, REMOVING_NS);
    if (branch_number(b) > 0) {
        snprintf(path, sizeof path, "/tmp/.branches/%u", branch_number(b));
        rmdir(path);
    }
    close_fd(&b->files);
}

static void end(struct branch *b)
{
    if (worker.task == BECOMES_BRANCH && starting == branch_number(b))
        adopt_worker();
    branch_kill(b);
}

static void forget(struct branch *b)
{
    if (b->attached) {
        end(b);
        branch_detach(b);
    }
    remove_files(b);
    b->exists = b->attached = false;
}

void session_process_ended(pid_t pid, int status)
{
    for (struct branch *b = branches; active && b < branches + BRANCHES_MAX; b++)
        if (b->attached && !b->ended && b->pid == pid) {
            b->ended = true;
            b->status = status;
        }
}

/* --- Forks and files ------------------------------------------------------------------------------ */

static void answer(int error, size_t size)
{
    put_u32(outbox_payload(&outbox), (uint32_t)error);
    outbox_commit(&outbox, F_ANSWER, 4 + size);
}

/* Asks the interpreter to fork. It tells the host itself whether it did. */
static int make_copy(struct branch *of, struct branch *b)
{
    int out[2], err[2], control[2], on = 1;
    char path[32];
    b->files = open_files(branch_number(b));
    if (b->files < 0)
        return errno;
    branch_attach(b);
    empty_directory(b->files, REMOVING_NS); /* an earlier branch of that number may have left something */
    int error = files_copy(of->files, b->files);
    if (error)
        return error;
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control))
        fail("no pipes for branch %u: %s", branch_number(b), strerror(errno));
    b->out[0] = out[0];
    b->out[1] = err[0];
    b->control = control[0];
    int ours[] = {out[0], err[0], control[0]};
    for (int i = 0; i < 3; i++)
        fcntl(ours[i], F_SETFL, O_NONBLOCK);
    if (setsockopt(b->control, SOL_SOCKET, SO_PASSCRED, &on, sizeof on))
        fail("SO_PASSCRED: %s", strerror(errno));
    memcpy(of->fds, (int[]){out[1], err[1], control[1]}, sizeof of->fds);
    int size = snprintf(path, sizeof path, "/tmp/.branches/%u", branch_number(b));
    branch_take_message(of, W_FORK, (uint8_t *)path, (size_t)size);
    return 0;
}

static void fork_branch(struct branch *of, struct branch *b)
{
    channel_make_room(FILES_ANSWER_MAX + 4);
    int error = !of->attached || of->control < 0 ? ESRCH : b->exists ? EEXIST : make_copy(of, b);
    if (error && error != EEXIST && b->exists)
        forget(b);
    answer(error, 0);
}

static void handle_files(const struct branch *b, const uint8_t *request, size_t size)
{
    size_t answered = 0;
    channel_make_room(FILES_ANSWER_MAX + 4);
    uint8_t *data = outbox_payload(&outbox) + 4;
    int error = b->exists ? files_request(b->files, request, size, data, &answered) : ESRCH;
    answer(error, answered);
}

/* --- Frames, and the loop ------------------------------------------------------------------------------ */

static void gather_command(const struct frame *f)
{
    const char *wrong = f->type == F_ARG   ? command_arg(&command, f->payload, f->size)
                        : f->type == F_ENV ? command_env(&command, f->payload, f->size)
                                           : command_cwd(&command, f->payload, f->size);
    if (wrong)
        fail("protocol: %s", wrong);
}

static void send_signal(struct branch *b, int number)
{
    if (number != SIGINT && number != SIGKILL)
        fail("protocol: signal %d", number);
    if (!b->attached)
        return;
    if (number == SIGKILL) {
        end(b);
        branch_conclude(b); /* even if there was nothing to kill: the host waits for ENDED */
    } else if (b->pid > 1 && !b->ended && kill(-b->pid, number)) /* its children as well, as a terminal would */
        kill(b->pid, number);
}

/* The branch may have ended meanwhile without the host knowing: then init drops the frame or answers ESRCH. */
static void obey_for_branch(struct branch *b, uint8_t type, const uint8_t *rest, size_t size)
{
    switch (type) {
    case F_START:
        start(b);
        break;
    case F_MESSAGE:
        if (size == 0)
            fail("protocol: a message of no type");
        if (b->attached)
            branch_take_message(b, rest[0], rest + 1, size - 1);
        break;
    case F_FORK:
        if (size != 4 || get_u32(rest) == 0)
            fail("protocol: a copy of no number");
        fork_branch(b, branch_at(rest));
        break;
    case F_SIGNAL:
        send_signal(b, size == 1 ? rest[0] : 0);
        break;
    case F_FORGET:
        if (b->exists)
            forget(b);
        break;
    case F_FILES:
        handle_files(b, rest, size);
        break;
    default:
        fail("protocol: frame %u in a session", type);
    }
}

void session_obey(const struct frame *f)
{
    if (f->type == F_ARG || f->type == F_ENV || f->type == F_CWD)
        gather_command(f);
    else if (f->type == F_WORKER)
        worker_start(ONE_RUN);
    else if (f->size < 4)
        fail("protocol: frame %u without a branch", f->type);
    else
        obey_for_branch(branch_at(f->payload), f->type, f->payload + 4, f->size - 4);
}

enum { CONTROL, STDOUT, STDERR, EACH };

static void poll_branch(const struct branch *b, bool reads, struct pollfd fds[EACH])
{
    bool sends = b->start < b->end;
    fds[CONTROL] = (struct pollfd){b->attached ? b->control : -1, (short)(POLLIN | (sends ? POLLOUT : 0)), 0};
    for (int i = 0; i < 2; i++)
        fds[STDOUT + i] = (struct pollfd){b->attached && reads ? b->out[i] : -1, POLLIN, 0};
}

static void serve_branch(struct branch *b, const struct pollfd fds[EACH])
{
    if (!b->attached)
        return;
    for (int i = 0; i < 2; i++)
        if (fds[STDOUT + i].revents && b->out[i] >= 0)
            branch_pump_text(b, i, PAYLOAD_MAX);
    if (fds[CONTROL].revents & (POLLIN | POLLHUP | POLLERR) && b->control >= 0)
        branch_pump_said(b);
    if (fds[CONTROL].revents & POLLOUT && b->control >= 0 && b->start < b->end)
        branch_send_message(b);
    if (b->ended)
        branch_conclude(b);
}

void session_serve_worker(short events)
{
    if (events & (POLLIN | POLLHUP | POLLERR))
        worker_receive();
    if (events & POLLOUT && worker.control >= 0)
        send_to_worker();
    if (start_failed())
        conclude_start();
}

_Noreturn void session_serve(void)
{
    enum { IN, OUT, SIGNALS, WORKER, FIRST };
    static struct pollfd fds[FIRST + EACH * BRANCHES_MAX];
    for (;;) {
        bool quiet = branches_quiet_until_ns > now_ns();
        bool reads = !quiet && outbox_room(&outbox) >= TEXT_HEAD_BYTES + SMALL_READ;
        fds[IN] = (struct pollfd){channel_in, POLLIN, 0};
        fds[OUT] = (struct pollfd){outbox.end ? channel_out : -1, POLLOUT, 0};
        fds[SIGNALS] = (struct pollfd){process_signals, POLLIN, 0};
        fds[WORKER] = worker_poll();
        for (int i = 0; i < BRANCHES_MAX; i++)
            poll_branch(branches + i, reads, fds + FIRST + EACH * i);
        channel_poll(fds, sizeof fds / sizeof *fds, quiet ? branches_quiet_until_ns : UINT64_MAX);
        if (fds[SIGNALS].revents)
            processes_reap();
        session_serve_worker(fds[WORKER].revents);
        for (int i = 0; i < BRANCHES_MAX; i++)
            serve_branch(branches + i, fds + FIRST + EACH * i);
        if (fds[IN].revents)
            channel_receive(session_obey);
        channel_flush();
    }
}
