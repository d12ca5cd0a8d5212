/* The parts of init, and the protocol they speak. docs/protocol.md tells the whole story. */
#ifndef CODEFORGE_INIT_H
#define CODEFORGE_INIT_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* --- frame.c: bytes <-> frames. No I/O but outbox_flush(). ------------------------------------ */

enum { HEADER_BYTES = 5, PAYLOAD_MAX = 64 * 1024 };

/* Host to init. */
enum {
    F_LIMITS = 'l', /* struct of little-endian integers, see limits_parse() */
    F_ARG = 'a',    /* one entry of argv */
    F_ENV = 'e',    /* KEY=VALUE, on top of init's own environment */
    F_CWD = 'c',    /* the directory to start in, if not /code */
    F_WORKER = 'w', /* u8 enum worker_kind: start argv now; it waits */
    F_PRELOAD = 'p', /* a step of what the worker can do beforehand; its own language */
    F_FILE = 'f',   /* u32 mode, path below /code: the file that DATA goes to */
    F_DATA = 'd',
    F_GO = 'g',     /* u8: enum go_flag; TOKEN_BYTES for EXIT */
    F_STDIN = 'i',  /* bytes for the run; none = end of file */
    F_KILL = 'k',
    /* Of sessions; each begins with u32, the number of a branch. */
    F_START = 's',   /* start the command, or the worker that waits, as that branch */
    F_MESSAGE = 'm', /* u8 type, payload: a frame for its control socket */
    F_FORK = 'b',    /* u32: have a copy of it made as the branch of that number */
    F_SIGNAL = 'n',  /* u8: send it SIGINT or SIGKILL */
    F_FORGET = 'x',  /* end it, and remove its files */
    F_FILES = 'q',   /* a request about its files, see session_files.c */
};

/* Init to host. */
enum {
    F_READY = 'R',   /* posture, KEY=VALUE lines */
    F_PRELOADED = 'P', /* the worker did a step */
    F_STDOUT = 'O',
    F_STDERR = 'E',
    F_DROPPED = 'X', /* u8 stream (1, 2), u64 bytes that were read and not sent */
    F_ACK = 'A',     /* u32: as many bytes of stdin were taken */
    F_EXIT = 'W',    /* how the run ended, see run_report() */
    F_OUTFILE = 'F', /* u32 mode, path: a file that the run wrote; OUTDATA follows */
    F_OUTDATA = 'D',
    F_SKIPPED = 'S', /* u8 reason, path: a thing the run left that is not sent */
    F_CLEAN = 'C', /* everything of the run is gone: the sandbox takes another one */
    F_DONE = 'Z',
    F_FAIL = '!',    /* text: init could not do what was asked */
    /* Of sessions; each but ANSWER begins with u32, the number of a branch. */
    F_TEXT = 'T',    /* u8 stream (1, 2), bytes that it wrote there */
    F_SAID = 'M',    /* bytes that came from its control socket */
    F_TAKEN = 'K',   /* the last MESSAGE is on its way: the next one may come */
    F_ENDED = 'B',   /* how it ended, see tell_end() */
    F_ANSWER = 'Q',  /* u32 errno, data: to FORK and FILES */
};

struct frame {
    uint8_t type;
    uint32_t size;
    const uint8_t *payload; /* valid until the next inbox_next() */
};

/* What came from the host and is not parsed yet. */
struct inbox {
    size_t start, end;
    uint8_t bytes[HEADER_BYTES + PAYLOAD_MAX];
};

enum inbox_state { INBOX_FRAME, INBOX_MORE, INBOX_BAD };

/* The room that may be filled by a read(); moves what is unparsed to the front. */
uint8_t *inbox_room(struct inbox *in, size_t *size);
enum inbox_state inbox_next(struct inbox *in, struct frame *out);

/* What is to go to the host. Producers ask for room first, so a slow host stops them. */
struct outbox {
    size_t start, end;
    uint8_t bytes[2 * (HEADER_BYTES + PAYLOAD_MAX)];
};

size_t outbox_room(const struct outbox *out); /* payload bytes that fit in one more frame */
uint8_t *outbox_payload(struct outbox *out);  /* where the next frame's payload goes */
void outbox_commit(struct outbox *out, uint8_t type, size_t size);
void outbox_put(struct outbox *out, uint8_t type, const void *payload, size_t size);
bool outbox_flush(struct outbox *out, int fd); /* as much as fd takes; false: fd is gone */

uint32_t get_u32(const uint8_t *p);
uint64_t get_u64(const uint8_t *p);
uint8_t *put_u32(uint8_t *p, uint32_t v);
uint8_t *put_u64(uint8_t *p, uint64_t v);

/* --- command.c: argv and environment of the next process -------------------------------------- */

enum { COMMAND_BYTES = 256 * 1024, COMMAND_STRINGS = 4096, CWD_BYTES = 256 };

struct command {
    size_t used;
    int argc, envc;
    char *argv[COMMAND_STRINGS + 1];
    char *env[COMMAND_STRINGS + 1];
    char cwd[CWD_BYTES];
    char bytes[COMMAND_BYTES];
};

void command_clear(struct command *c);
const char *command_arg(struct command *c, const uint8_t *s, size_t size); /* NULL or what is wrong */
const char *command_env(struct command *c, const uint8_t *s, size_t size);
const char *command_cwd(struct command *c, const uint8_t *s, size_t size);
/* Puts "argc\0arg\0...KEY=VALUE\0..." into into[]; returns its size, 0 if it does not fit. */
size_t command_message(const struct command *c, char *into, size_t size);
/* The child's side of a fork: execs, or returns errno. */
int command_exec(struct command *c);

/* --- posture.c: what the kernel says this sandbox is ------------------------------------------ */

size_t posture(char *into, size_t size);
/* From this sandbox's cgroup, v1 or v2; 0 where the kernel does not tell. */
uint64_t memory_peak_bytes(void);
uint64_t task_count(void); /* processes and threads, init's own too */
/* Of this sandbox's network; and the ports that stay taken for a minute after a connection. */
uint64_t socket_count(uint64_t *ports);
uint32_t oom_kill_count(void);
uint32_t pids_refused_count(void); /* forks and threads above the limit */

/* --- names.c: what is in a directory ------------------------------------------------------------ */

struct names {
    int dir; /* an open directory, read from where it stands */
    long at, have;
    int64_t offset; /* behind the last name, for lseek() */
    _Alignas(8) char buffer[2048];
};

const char *next_name(struct names *n); /* NULL: no more */

/* --- files.c: files in, files out -------------------------------------------------------------- */

enum { PATH_BYTES = 4096 };

enum skip_reason { SKIP_NOT_REGULAR = 1, SKIP_LINKED, SKIP_TOO_LARGE, SKIP_TOO_MANY, SKIP_TOO_DEEP, SKIP_UNREADABLE };

int file_parent(int root, char *name, char **last, bool make); /* -1 and errno */
/* Opens path below the working directory for writing, making directories. -1 and errno. */
int file_create(const uint8_t *path, size_t size, uint32_t mode);
/* Remembers what file_create() made, so that only what the run wrote is sent back. */
void file_close(int fd, const uint8_t *path, size_t size);
void files_forget(void); /* the inputs of a run that is over */
/* Sends every file below the working directory that the run wrote. Nothing else may be alive. */
void files_collect(uint64_t max_bytes, uint32_t max_files);

/* --- channel.c: the channel to the host, the clock, the ways to end ----------------------------- */

enum { EXIT_FAILED = 70 /* as sysexits.h: internal software error */ };

extern int channel_in, channel_out;
extern struct inbox inbox;
extern struct outbox outbox;

void take_over_channel(void);           /* from descriptors 0 and 1, which the run gets pipes for */
bool channel_read(void);                /* what the host says, into inbox; false: nothing now */
void channel_wait(void);                /* until the host takes or says something; frames are dropped */
void channel_wait_room(size_t payload); /* until a frame of that size fits */
void channel_make_room(size_t payload); /* likewise, and what the host says meanwhile stays where it is */
_Noreturn void finish(int code);        /* when the host has taken everything, and hangs up */
__attribute__((format(printf, 1, 2))) _Noreturn void fail(const char *format, ...);

void wait_for(struct pollfd *fds, nfds_t count, int ms); /* poll(), or the end */
uint64_t now_ns(void);
int timeout_ms(uint64_t now, uint64_t wake_ns); /* for poll(): wake_ns, or when to give up */

/* --- run.c: the run's processes ----------------------------------------------------------------- */

enum go_flag { GO_FRESH = 1 /* in a new process, even if a worker waits */, GO_KEEP = 2 /* for another run */ };

enum { TOKEN_BYTES = 16 };

struct run {
    pid_t pid;    /* of its first process; 0: not known yet */
    bool ended, keep;
    int status;      /* of its first process, as wait() gives it */
    int in, out[2]; /* our ends of its pipes; -1: closed */
    uint64_t sent[2], dropped[2], told[2];
    uint64_t started_ns, quiet_until_ns;
    uint32_t oom_kills, pids_refused; /* before it */
    uint8_t token[TOKEN_BYTES]; /* by which the host knows that EXIT is init's */
};

extern struct run run;
extern struct command command; /* what the next process will be */
extern int signals;            /* where the kernel tells of ended children */

pid_t start_command(int in, int out, int err, int control, bool template);
void open_pipes(int theirs[3]); /* of the run; ours go into run */
void close_end(int *fd);
void close_run(void); /* our ends, and what is known of the run */
void go(uint8_t flags, const uint8_t token[TOKEN_BYTES]);
void reap(void);
void kill_everything(void);
bool kill_run(void); /* everything but the template; false: it cannot be done */
uint64_t run_cpu_us(void); /* since GO, of everything that is dead */

/* --- worker.c: the interpreter that waits, and the control socket to it ---------------------------- */

enum { CONTROL_FD = 3 /* where a worker finds its socket */ };

enum worker_kind { ONE_RUN /* becomes the run */, TEMPLATE /* forks the runs */ };

struct worker {
    pid_t pid; /* 0: there is none */
    enum worker_kind kind;
    bool ended, becomes_branch;
    int status; /* once it ended */
    int control; /* -1: closed */
    unsigned steps; /* that it was told, and did not say it did */
    uint64_t reported_us; /* CPU of the runs that a template forked, and that it reaped */
};

extern struct worker worker;

void worker_start(enum worker_kind kind);
void worker_drop(void); /* with everything else that runs */
void worker_hang_up(void); /* with it alone, which is dead or about to be */
void worker_preload(const struct frame *f);
void worker_become_run(void);
void worker_become_branch(void); /* session_adopt_worker() is called when it has heard of it */
void worker_fork_run(int theirs[3]); /* closes them once they are sent */
struct pollfd worker_poll(void);     /* for its socket */
void worker_tell(void);
void worker_hear(void);

/* --- filter.c: system calls that reach beyond the run ---------------------------------------------- */

enum filter_for {
    ENGINE,      /* a sandbox, init with it: the kernel's surface alone */
    RUN,         /* what is started in it: init is out of reach as well */
    RUN_TEMPLATE /* likewise, and so is the template, which this process is to be */
};

/* For this process and all that come of it; false and errno. */
bool filter_install(enum filter_for whom);

/* --- clean.c: between two runs in one sandbox ------------------------------------------------------- */

void empty_directory(int root); /* whatever its depth, for 2 s at most; what is left then could not be removed */
void clean_remember(void); /* how the sandbox was before the first run */
const char *clean(void);   /* NULL, or what is not as it was */

/* --- session.c: interpreters that stay, and talk with the host ------------------------------------------ */

enum { BRANCHES_MAX = 64 };

bool session_active(void);
void session_obey(const struct frame *f);
void session_adopt_worker(void); /* it has been told to start */
void session_reaped(pid_t pid, int status);
_Noreturn void serve_session(void);

/* --- session_files.c: what the host does with a branch's files -------------------------------------- */

enum { FILES_ANSWER_MAX = PAYLOAD_MAX - 4 };

/* Writes an answer of at most FILES_ANSWER_MAX bytes, and its size; returns errno, or 0. */
int files_request(int root, const uint8_t *request, size_t size, uint8_t *answer, size_t *answer_size);
/* Copies what is in one directory into an empty one; 0 or errno. */
int files_copy(int from, int into);

/* --- streams.c: bytes between the host and the run ------------------------------------------------ */

enum {
    STDIN_WINDOW = 64 * 1024, /* bytes the host may send beyond what was ACKed */
    ACK_BYTES = 4,
    ROOM_TO_LISTEN = 4096, /* with less room for output, the run has to wait */
};

bool pump(int stream); /* one piece of output; false when there is nothing now, or no more ever */
void tell_dropped(int stream, uint64_t step);
void take_stdin(const struct frame *f);
bool feed_pending(void); /* there is something to feed, or to acknowledge */
void feed_run(void);
void feed_forget(void); /* the stdin of a run that is over */

/* --- main.c ---------------------------------------------------------------------------------------- */

struct limits {
    uint64_t output_bytes, files_bytes;
    uint32_t files, max_age_ms;
};

extern struct limits limits;

void listen_to_host(void); /* and obey */

#endif
