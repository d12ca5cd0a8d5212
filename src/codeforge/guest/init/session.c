/* Sessions: interpreters that stay, each with pipes for what it writes and a socket for messages.
 *
 * A session's first interpreter is branch 0. It can be asked to fork: the copy is another branch, with
 * pipes, a socket and files of its own. The sandbox is theirs until the host closes the channel; no run
 * comes after them.
 *
 * init carries bytes. What is said on a socket is between the host and the interpreter (docs/protocol.md
 * has it); the one thing that init itself says there is FORK, for it goes with descriptors. Nobody vouches
 * for what an interpreter says: its program shares the process with it. branch.c moves the bytes. */
#include "branch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { W_FORK = 'f' };

static bool active;
static uint32_t starting; /* the branch that the worker is to be */

bool session_active(void)
{
    return active;
}

/* --- Beginnings and ends ---------------------------------------------------------------------------- */

static struct branch *branch_at(const uint8_t *number)
{
    uint32_t n = get_u32(number);
    if (n >= BRANCHES_MAX)
        fail("protocol: branch %u", n);
    return branches + n;
}

/* A directory of init's own; where the program has put something else in the way, an error. */
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
    int why = errno;
    close_end(&tmp);
    close_end(&all);
    errno = why;
    return dir;
}

/* The worker has not heard that it is a branch, and never will. */
static void conclude_start(void)
{
    struct branch *b = branches + starting;
    session_adopt_worker();
    if (!b->ended)
        hung_up(b);
    conclude(b);
}

static void start(struct branch *b)
{
    if (!worker.pid || worker.kind != ONE_RUN || worker.becomes_branch || b->there)
        fail("protocol: no worker to start, or branch %u is there", number_of(b));
    if (!b->exists)
        b->files = open_files(number_of(b));
    if (b->files < 0)
        fail("no files of branch %u: %s", number_of(b), strerror(errno));
    begin(b);
    if (!active)
        run.started_ns = now_ns();
    active = true;
    starting = number_of(b);
    worker_become_branch();
    worker_tell(); /* so that another one may be started right behind it */
    if (worker.becomes_branch && (worker.ended || worker.control < 0))
        conclude_start();
    else if (b->ended)
        conclude(b);
}

void session_adopt_worker(void)
{
    struct branch *b = branches + starting;
    b->pid = worker.pid;
    b->ended = worker.ended;
    b->status = worker.status;
    b->control = worker.control;
    b->out[0] = run.out[0];
    b->out[1] = run.out[1];
    run.out[0] = run.out[1] = -1;
    close_end(&run.in);
    worker.control = -1;
    worker_hang_up();
}

static void remove_files(struct branch *b)
{
    char path[32];
    empty_directory(b->files);
    if (number_of(b) > 0) {
        snprintf(path, sizeof path, "/tmp/.branches/%u", number_of(b));
        rmdir(path);
    }
    close_end(&b->files);
}

static void end(struct branch *b)
{
    if (worker.becomes_branch && starting == number_of(b))
        session_adopt_worker();
    end_now(b);
}

static void forget(struct branch *b)
{
    if (b->there) {
        end(b);
        let_go(b);
    }
    remove_files(b);
    b->exists = b->there = false;
}

void session_reaped(pid_t pid, int status)
{
    for (struct branch *b = branches; active && b < branches + BRANCHES_MAX; b++)
        if (b->there && !b->ended && b->pid == pid) {
            b->ended = true;
            b->status = status;
        }
}

/* --- Branches of branches ----------------------------------------------------------------------------- */

static void answer(int error, size_t size)
{
    put_u32(outbox_payload(&outbox), (uint32_t)error);
    outbox_commit(&outbox, F_ANSWER, 4 + size);
}

/* The interpreter is told to fork; that it has, or why not, it tells the host. */
static int make_copy(struct branch *of, struct branch *b)
{
    int out[2], err[2], control[2], on = 1;
    char path[32];
    b->files = open_files(number_of(b));
    if (b->files < 0)
        return errno;
    begin(b);
    empty_directory(b->files); /* of one that was there before, something may have been left */
    int error = files_copy(of->files, b->files);
    if (error)
        return error;
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control))
        fail("no pipes for branch %u: %s", number_of(b), strerror(errno));
    b->out[0] = out[0];
    b->out[1] = err[0];
    b->control = control[0];
    int ours[] = {out[0], err[0], control[0]};
    for (int i = 0; i < 3; i++)
        fcntl(ours[i], F_SETFL, O_NONBLOCK);
    if (setsockopt(b->control, SOL_SOCKET, SO_PASSCRED, &on, sizeof on))
        fail("SO_PASSCRED: %s", strerror(errno));
    memcpy(of->fds, (int[]){out[1], err[1], control[1]}, sizeof of->fds);
    int size = snprintf(path, sizeof path, "/tmp/.branches/%u", number_of(b));
    take_message(of, W_FORK, (uint8_t *)path, (size_t)size);
    return 0;
}

static void fork_branch(struct branch *of, struct branch *b)
{
    channel_make_room(FILES_ANSWER_MAX + 4);
    int error = !of->there || of->control < 0 ? ESRCH : b->exists ? EEXIST : make_copy(of, b);
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

/* --- The host, and the loop ---------------------------------------------------------------------------- */

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
    if (!b->there)
        return;
    if (number == SIGKILL) {
        end(b);
        conclude(b); /* whatever there is to be killed: the host waits for this */
    } else if (b->pid > 1 && !b->ended && kill(-b->pid, number)) /* what it waits for, as well; as a terminal would */
        kill(b->pid, number);
}

/* What is for a branch that has ended meanwhile, which the host did not know yet, is lost or an error. */
static void obey_for_branch(struct branch *b, uint8_t type, const uint8_t *rest, size_t size)
{
    switch (type) {
    case F_START:
        start(b);
        break;
    case F_MESSAGE:
        if (size == 0)
            fail("protocol: a message of no type");
        if (b->there)
            take_message(b, rest[0], rest + 1, size - 1);
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

static void poll_branch(const struct branch *b, bool listen, struct pollfd fds[EACH])
{
    bool sends = b->start < b->end;
    fds[CONTROL] = (struct pollfd){b->there ? b->control : -1, (short)(POLLIN | (sends ? POLLOUT : 0)), 0};
    for (int i = 0; i < 2; i++)
        fds[STDOUT + i] = (struct pollfd){b->there && listen ? b->out[i] : -1, POLLIN, 0};
}

static void serve_branch(struct branch *b, const struct pollfd fds[EACH])
{
    if (!b->there)
        return;
    for (int i = 0; i < 2; i++)
        if (fds[STDOUT + i].revents && b->out[i] >= 0)
            pump_text(b, i, PAYLOAD_MAX);
    if (fds[CONTROL].revents & (POLLIN | POLLHUP | POLLERR) && b->control >= 0)
        pump_said(b);
    if (fds[CONTROL].revents & POLLOUT && b->control >= 0 && b->start < b->end)
        send_message(b);
    if (b->ended)
        conclude(b);
}

_Noreturn void serve_session(void)
{
    enum { IN, OUT, SIGNALS, WORKER, FIRST };
    static struct pollfd fds[FIRST + EACH * BRANCHES_MAX];
    for (;;) {
        uint64_t now = now_ns();
        bool quiet = quiet_until_ns > now, listen = !quiet && outbox_room(&outbox) >= HEAD_BYTES + SMALL_READ;
        fds[IN] = (struct pollfd){channel_in, POLLIN, 0};
        fds[OUT] = (struct pollfd){outbox.end ? channel_out : -1, POLLOUT, 0};
        fds[SIGNALS] = (struct pollfd){signals, POLLIN, 0};
        fds[WORKER] = worker_poll();
        for (int i = 0; i < BRANCHES_MAX; i++)
            poll_branch(branches + i, listen, fds + FIRST + EACH * i);
        wait_for(fds, sizeof fds / sizeof *fds, timeout_ms(now, quiet ? quiet_until_ns : UINT64_MAX));
        if (fds[SIGNALS].revents)
            reap();
        if (fds[WORKER].revents & (POLLIN | POLLHUP | POLLERR))
            worker_hear();
        if (fds[WORKER].revents & POLLOUT && worker.control >= 0)
            worker_tell();
        if (worker.becomes_branch && (worker.ended || worker.control < 0))
            conclude_start();
        for (int i = 0; i < BRANCHES_MAX; i++)
            serve_branch(branches + i, fds + FIRST + EACH * i);
        if (fds[IN].revents)
            listen_to_host();
        if (!outbox_flush(&outbox, channel_out))
            _exit(0);
    }
}
