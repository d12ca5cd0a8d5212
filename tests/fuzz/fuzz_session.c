/* A session (session.c, branch.c, session_files.c): any frames from the host, any tree that a program makes,
 * interpreters that send anything, in pieces, or hang up.
 *
 * An input is a script in which each byte is an operation. Invariants:
 *   - nothing outside of /code and /tmp changes, no answer has data from there, and no link is followed;
 *   - each request about files, and each FORK, gets one answer, in one frame;
 *   - each frame carries a branch's number, and what an interpreter sent and wrote arrives unchanged;
 *   - no descriptor leaks. */
#include "fuzz.h"

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>

#include "session_stubs.h"

enum { SECRET_BYTES = 16, FORKED_FDS = 3 };

static const char secret[] = "the canary sings";
static char home[64];
static unsigned questions, answers;

/* --- Frames to the host ------------------------------------------------------------------------------- */

static bool holds_secret(const uint8_t *payload, size_t size)
{
    return memmem(payload, size, secret, SECRET_BYTES) != NULL;
}

static void take_outbox(void)
{
    for (size_t at = 0; at < outbox.end;) {
        size_t size = get_u32(outbox.bytes + at);
        uint8_t type = outbox.bytes[at + 4];
        const uint8_t *payload = outbox.bytes + at + HEADER_BYTES;
        HOLDS(size >= 4 && size <= PAYLOAD_MAX);
        if (type == F_ANSWER) {
            answers++;
            HOLDS(!holds_secret(payload, size));
        } else {
            HOLDS(type == F_TEXT || type == F_SAID || type == F_TAKEN || type == F_ENDED);
            HOLDS(get_u32(payload) < BRANCHES_MAX);
            HOLDS(type != F_TEXT || (size > 5 && (payload[4] == 1 || payload[4] == 2)));
            HOLDS(type != F_ENDED || size == 14);
        }
        at += HEADER_BYTES + size;
    }
    outbox.start = outbox.end = 0;
}

static int count_entries(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    HOLDS(dir != NULL);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void look_beside(void)
{
    char text[SECRET_BYTES + 1];
    struct stat st;
    HOLDS(count_entries("..") == 4); /* . .. in canary */
    HOLDS(count_entries(".") == 4);  /* . .. code tmp */
    HOLDS(count_entries("../canary") == 3);
    int file = __real_open("../canary/file", O_RDONLY);
    HOLDS(file >= 0 && fstat(file, &st) == 0 && (st.st_mode & 07777) == 0600);
    HOLDS(read(file, text, sizeof text) == SECRET_BYTES && memcmp(text, secret, SECRET_BYTES) == 0);
    close(file);
}

/* --- The places ---------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type;
    if (where->level && remove(path))
        abort();
    return 0;
}

static void empty_places(void)
{
    nftw("code", remove_one, 16, FTW_DEPTH | FTW_PHYS);
    nftw("tmp", remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_home(void)
{
    if (chdir(home) == 0)
        nftw(".", remove_one, 16, FTW_DEPTH | FTW_PHYS);
    rmdir(home);
}

static void make_home(void)
{
    strcpy(home, access("/dev/shm", W_OK) ? "/var/tmp/fuzz-session-XXXXXX" : "/dev/shm/fuzz-session-XXXXXX");
    if (!mkdtemp(home) || chdir(home) || mkdir("in", 0755) || mkdir("canary", 0700))
        abort();
    int canary = __real_open("canary/file", O_WRONLY | O_CREAT, 0600);
    if (canary < 0 || write(canary, secret, SECRET_BYTES) != SECRET_BYTES || close(canary) || chdir("in"))
        abort();
    if (mkdir("code", 0755) || mkdir("tmp", 0755))
        abort();
    umask(022);
}

/* --- Operations ------------------------------------------------------------------------------------------ */

struct script {
    const uint8_t *at, *end;
};

static uint8_t next(struct script *s)
{
    return s->at < s->end ? *s->at++ : 0;
}

static size_t rest_of(struct script *s, size_t most)
{
    return most < (size_t)(s->end - s->at) ? most : (size_t)(s->end - s->at);
}

/* Often one of a few names, so that operations meet; otherwise bytes of the script. */
static size_t path_of(struct script *s, char path[256])
{
    static const char *const names[] = {"a", "b", "d", "d/a", "d/b", "d/d/a", "l", "l/file", "l/a", "d/l", "d/l/file", "../canary/file", "/a",
                                        "d/../a", "./a", "d//a", "..", "", "d/", "d/..", "../tmp", "l/../file", ".", "d/."};
    uint8_t which = next(s);
    size_t size = which % 32;
    if (size < sizeof names / sizeof *names) {
        strcpy(path, names[size]);
        return strlen(path);
    }
    size = rest_of(s, next(s));
    memcpy(path, s->at, size);
    path[size] = 0;
    s->at += size;
    return size;
}

static void obey(uint8_t type, const uint8_t *payload, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1); /* so that a read beyond it is found */
    struct frame f = {type, (uint32_t)size, exact};
    memcpy(exact, payload, size);
    jmp_buf outer;
    memcpy(&outer, &gave_up, sizeof outer);
    if (setjmp(gave_up)) {
        free(exact);
        memcpy(&gave_up, &outer, sizeof outer);
        longjmp(gave_up, 1);
    }
    bool whole = session_active() && size >= 4 && get_u32(payload) < BRANCHES_MAX;
    unsigned before = questions;
    questions += whole && (type == F_FILES || (type == F_FORK && size == 8));
    session_obey(&f);
    memcpy(&gave_up, &outer, sizeof outer);
    free(exact);
    take_outbox();
    HOLDS(answers == questions && questions - before <= 1);
}

static uint8_t *branch_of(struct script *s, uint8_t *payload)
{
    return put_u32(payload, next(s) % 4u);
}

static void ask_about_files(struct script *s)
{
    static const char types[] = "rwlsdwrd?";
    uint8_t payload[600];
    char path[256];
    uint8_t *p = branch_of(s, payload), type = (uint8_t)types[next(s) % (sizeof types - 1)];
    size_t length = path_of(s, path), data = 0;
    uint64_t offset = next(s);
    offset = offset < 128 ? 0 : offset < 250 ? offset : UINT64_MAX >> (offset - 250);
    *p++ = type;
    if (type == 'r' || type == 'w')
        p = put_u32(put_u64(p, offset), type == 'w' ? next(s) * 257u : next(s) < 250 ? 61440 : UINT32_MAX);
    if (type == 'l')
        p = put_u64(p, offset);
    if (type == 'w') {
        uint8_t odd = next(s);
        *p++ = odd > 250 ? odd : (uint8_t)length;
        *p++ = odd > 253;
        data = next(s);
    }
    memcpy(p, path, length);
    memset(p + length, 'w', data);
    obey(F_FILES, payload, (size_t)(p - payload) + length + data);
}

static void any_frame(struct script *s)
{
    static const uint8_t types[] = {F_START, F_MESSAGE, F_FORK, F_SIGNAL, F_FORGET, F_FILES, F_ARG, F_ENV, F_CWD, F_WORKER, F_GO, 0};
    uint8_t type = types[next(s) % sizeof types];
    size_t size = rest_of(s, next(s));
    const uint8_t *payload = s->at;
    s->at += size;
    started = size >= 4 ? get_u32(payload) % BRANCHES_MAX : 0;
    obey(type, payload, size);
}

static void start(struct script *s)
{
    uint8_t payload[4], program[] = "program";
    branch_of(s, payload);
    started = get_u32(payload);
    reads_at_once = next(s) % 4 != 0;
    obey(F_ARG, program, sizeof program - 1);
    if (!worker.pid)
        obey(F_WORKER, payload, 0);
    obey(F_START, payload, 4);
}

static void fork_it(struct script *s)
{
    uint8_t payload[8];
    branch_of(s, branch_of(s, payload));
    obey(F_FORK, payload, 8);
}

static void message(struct script *s)
{
    static uint8_t payload[5 + 60000];
    uint8_t *p = branch_of(s, payload);
    memset(p, 'J', sizeof payload - 4);
    obey(F_MESSAGE, payload, 5 + next(s) * 200u);
}

static void signal_or_forget(struct script *s)
{
    uint8_t payload[5], what = next(s);
    branch_of(s, payload);
    payload[4] = what % 4 == 0 ? SIGINT : SIGKILL;
    obey(what % 2 ? F_FORGET : F_SIGNAL, payload, what % 2 ? 4 : 5);
}

/* As init's loop does, for one branch. */
static void serve(struct script *s)
{
    struct branch *b = branches + next(s) % 4u;
    if (worker.task == BECOMES_BRANCH) {
        reads_at_once = true;
        session_serve_worker(POLLOUT);
    }
    if (!b->attached)
        return;
    for (int i = 0; i < 2; i++)
        if (b->out[i] >= 0)
            branch_pump_text(b, i, PAYLOAD_MAX);
    if (b->control >= 0)
        branch_pump_said(b);
    if (b->control >= 0 && b->start < b->end)
        branch_send_message(b);
    if (b->ended)
        branch_conclude(b);
    take_outbox();
    HOLDS(!b->attached || !b->ended);
}

/* An interpreter reads its socket. With FORK come descriptors: the copy's socket becomes that branch's. */
static void interpreter_reads(struct script *s)
{
    static uint8_t bytes[65536];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    int end = interpreters[next(s) % 4u];
    if (end < 0)
        return;
    struct iovec piece = {bytes, sizeof bytes};
    struct msghdr received = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(end, &received, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&received) : NULL;
    for (; c; c = CMSG_NXTHDR(&received, c)) {
        int fds[FORKED_FDS];
        HOLDS(c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fds));
        memcpy(fds, CMSG_DATA(c), sizeof fds);
        int ignored = write(fds[0], "text", 4) < 0;
        (void)ignored;
        for (int i = 0; i < 2; i++)
            close(fds[i]);
        int which = next(s) % 4;
        close_fd(&interpreters[which]);
        interpreters[which] = fds[2];
    }
}

static void interpreter_says(struct script *s)
{
    int end = interpreters[next(s) % 4u];
    size_t size = rest_of(s, next(s));
    if (end >= 0)
        send(end, s->at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    s->at += size;
}

/* Paths that the fuzzer itself must not change: it has no O_NOFOLLOW for every part. */
static bool leads_out(char *path)
{
    struct stat st;
    bool link = false;
    for (char *slash = path; (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        link = link || (lstat(path, &st) == 0 && S_ISLNK(st.st_mode));
        *slash = '/';
    }
    return link || path[0] == '/' || path[0] == 0 || strstr(path, "..") || path[0] == '.';
}

/* Changes a branch's files as a program would. Errors are ignored. */
static void meddle(struct script *s)
{
    static const char *const targets[] = {"../../canary", "../../canary/file", "/", "..", ".", "a", "../../../canary/file", "../../../../canary"};
    char path[256], other[256], place[64];
    uint8_t how = next(s), number = next(s) % 4u;
    int before = __real_open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ignored = 0;
    snprintf(place, sizeof place, number ? "tmp/.branches/%u" : "code", number);
    path_of(s, path);
    struct stat st;
    if (!leads_out(place) && lstat(place, &st) == 0 && S_ISDIR(st.st_mode) && chdir(place) == 0 && !leads_out(path))
        switch (how % 7) {
        case 0:
            ignored = mkdir(path, 0700);
            break;
        case 1:
        case 2:
            ignored = symlink(targets[next(s) % 8], how & 16 ? "l" : path);
            break;
        case 3:
            ignored = mkfifo(path, 0600);
            break;
        case 4:
            ignored = remove(path);
            break;
        case 5:
            path_of(s, other);
            ignored = leads_out(other) || rename(other, path);
            break;
        default:
            for (int n = next(s) % 40; n > 0 && mkdir("d", 0700) == 0 && chdir("d") == 0; n--)
                ;
        }
    HOLDS(fchdir(before) == 0);
    close(before);
    (void)ignored;
}

/* Puts something in the place of init's own directories. */
static void stand_in_the_way(struct script *s)
{
    char path[64];
    struct stat st;
    int ignored = mkdir("tmp/.branches", 0700);
    if (lstat("tmp/.branches", &st) || !S_ISDIR(st.st_mode))
        return;
    snprintf(path, sizeof path, "tmp/.branches/%u", next(s) % 4u);
    switch (next(s) % 4) {
    case 0:
        ignored = symlink("../../../canary", path);
        break;
    case 1:
        ignored = mkdir(path, 0700);
        break;
    case 2:
        ignored = rmdir("tmp/.branches") || symlink("../../canary", "tmp/.branches");
        break;
    default:
        ignored = remove(path);
    }
    (void)ignored;
}

static void operate(struct script *s)
{
    uint8_t code = next(s);
    switch (code % 13) {
    case 0:
    case 1:
    case 2:
        ask_about_files(s);
        break;
    case 3:
        any_frame(s);
        break;
    case 4:
        start(s);
        break;
    case 5:
        fork_it(s);
        break;
    case 6:
        message(s);
        break;
    case 7:
        signal_or_forget(s);
        break;
    case 8:
        serve(s);
        break;
    case 9:
        interpreter_reads(s);
        break;
    case 10:
        if (code > 230)
            close_fd(&interpreters[next(s) % 4u]);
        else
            interpreter_says(s);
        break;
    case 11:
        stand_in_the_way(s);
        break;
    default:
        meddle(s);
    }
}

enum { DESCRIPTORS = 1024 };

static bool open_before[DESCRIPTORS];

static void remember_descriptors(void)
{
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        open_before[fd] = fcntl(fd, F_GETFD) >= 0;
}

/* init is gone once it has failed, with all its descriptors. Otherwise none may be left. */
static void look_at_descriptors(bool gone)
{
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        if (!open_before[fd] && fcntl(fd, F_GETFD) >= 0) {
            HOLDS(gone);
            close(fd);
        }
}

static void forget_all(void)
{
    worker_forget();
    close_fd(&worker_end);
    for (struct branch *b = branches; b < branches + BRANCHES_MAX; b++) {
        if (b->attached)
            branch_detach(b);
        if (b->exists)
            close_fd(&b->files);
        b->exists = b->attached = false;
        close_fd(&interpreters[branch_number(b)]);
    }
    outbox.start = outbox.end = 0;
    command_clear(&command);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int before = -1, in = -1;
    if (before < 0) {
        before = __real_open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        make_home();
        signal(SIGPIPE, SIG_IGN);
        in = __real_open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        atexit(remove_home);
        for (int i = 0; i < BRANCHES_MAX; i++)
            interpreters[i] = -1;
    }
    if (memmem(data, size, secret, SECRET_BYTES))
        return 0; /* the fuzzer sees what is compared, and would put it into a name */
    HOLDS(fchdir(in) == 0);
    remember_descriptors();
    struct script s = {data, data + size}, beginning = {(const uint8_t *)"\0\1", (const uint8_t *)"\0\1" + 2};
    questions = answers = 0;
    bool gone = setjmp(gave_up) != 0;
    if (!gone) {
        start(&beginning);
        for (int i = 0; i < 300 && s.at < s.end; i++)
            operate(&s);
    }
    forget_all();
    empty_places();
    look_beside();
    look_at_descriptors(gone);
    HOLDS(fchdir(before) == 0);
    return 0;
}
