/* Frames and the boxes that hold them. docs/protocol.md describes the protocol. */
#ifndef CODEFORGE_FRAME_H
#define CODEFORGE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HEADER_BYTES = 5, PAYLOAD_MAX = 64 * 1024 };

/* Host to init. */
enum {
    F_LIMITS = 'l', /* little-endian integers, see limits_parse() */
    F_ARG = 'a',    /* one entry of argv */
    F_ENV = 'e',    /* KEY=VALUE, on top of init's own environment */
    F_CWD = 'c',    /* the directory to start in, if not /code */
    F_WORKER = 'w', /* u8 enum worker_kind: start argv now; it waits */
    F_PRELOAD = 'p', /* a step for the worker to do in advance, in the worker's own language */
    F_FILE = 'f',   /* u32 mode, path below /code: the file that DATA goes to */
    F_DATA = 'd',
    F_GO = 'g',     /* u8 enum go_flag, TOKEN_BYTES for EXIT */
    F_STDIN = 'i',  /* bytes for the run; none: end of file */
    F_KILL = 'k',
    /* Sessions. Each payload begins with u32, a branch number. */
    F_START = 's',   /* start the waiting worker as this branch, with the command */
    F_MESSAGE = 'm', /* u8 type, payload: a frame for its control socket */
    F_FORK = 'b',    /* u32: fork it into the branch of that number */
    F_SIGNAL = 'n',  /* u8: send it SIGINT or SIGKILL */
    F_FORGET = 'x',  /* end it and remove its files */
    F_FILES = 'q',   /* a request about its files, see session_files.c */
};

/* Init to host. */
enum {
    F_READY = 'R',   /* posture, KEY=VALUE lines */
    F_PRELOADED = 'P', /* the worker has done a step */
    F_STDOUT = 'O',
    F_STDERR = 'E',
    F_DROPPED = 'X', /* u8 stream (1, 2), u64 bytes read and not sent */
    F_ACK = 'A',     /* u32 bytes of stdin that the run took */
    F_EXIT = 'W',    /* how the run ended, see report_exit() */
    F_OUTFILE = 'F', /* u32 mode, path: a file that the run wrote; OUTDATA follows */
    F_OUTDATA = 'D',
    F_SKIPPED = 'S', /* u8 reason, path: a file that the run left and init does not send */
    F_CLEAN = 'C', /* nothing of the run is left: the sandbox takes another one */
    F_DONE = 'Z',
    F_FAIL = '!',    /* text: init could not do what the host asked */
    /* Sessions. Each payload but ANSWER's begins with u32, a branch number. */
    F_TEXT = 'T',    /* u8 stream (1, 2), bytes that the branch wrote there */
    F_SAID = 'M',    /* bytes from its control socket */
    F_TAKEN = 'K',   /* its socket has the last MESSAGE: the next one may come */
    F_ENDED = 'B',   /* how it ended, see send_ended() */
    F_ANSWER = 'Q',  /* u32 errno, data: to FORK and FILES */
};

struct frame {
    uint8_t type;
    uint32_t size;
    const uint8_t *payload; /* inside the inbox; valid until the next inbox_next() */
};

/* Bytes from the host, not yet parsed. */
struct inbox {
    size_t start, end;
    uint8_t bytes[HEADER_BYTES + PAYLOAD_MAX];
};

enum inbox_state { INBOX_FRAME, INBOX_MORE, INBOX_BAD };

/* The room that a read() may fill; moves unparsed bytes to the front. */
uint8_t *inbox_room(struct inbox *in, size_t *size);
enum inbox_state inbox_next(struct inbox *in, struct frame *out);

/* Frames for the host. Producers ask for room first, so a slow host stops them. */
struct outbox {
    size_t start, end;
    uint8_t bytes[2 * (HEADER_BYTES + PAYLOAD_MAX)];
};

size_t outbox_room(const struct outbox *out); /* payload bytes that fit in one more frame */
uint8_t *outbox_payload(struct outbox *out);  /* where the next frame's payload goes */
void outbox_commit(struct outbox *out, uint8_t type, size_t size);
void outbox_put(struct outbox *out, uint8_t type, const void *payload, size_t size);
bool outbox_flush(struct outbox *out, int fd); /* writes what fd takes; false: fd is gone */

uint32_t get_u32(const uint8_t *p);
uint64_t get_u64(const uint8_t *p);
uint8_t *put_u32(uint8_t *p, uint32_t v); /* returns the byte after it */
uint8_t *put_u64(uint8_t *p, uint64_t v);

#endif
