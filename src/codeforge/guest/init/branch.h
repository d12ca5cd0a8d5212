/* A branch of a session: one interpreter with its pipes, its socket and its files. */
#ifndef CODEFORGE_BRANCH_H
#define CODEFORGE_BRANCH_H

#include "frame.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { BRANCHES_MAX = 64, TEXT_HEAD_BYTES = 5 /* of TEXT: the branch number and the stream */ };

/* A branch owns its descriptors; -1: closed. */
extern struct branch {
    bool exists; /* it has files: from START or FORK to FORGET */
    int files;
    bool attached; /* it also has an interpreter, running or not yet reported as ended */
    pid_t pid;     /* 0: it has not sent anything yet */
    bool ended;
    int status, control, out[2];
    size_t start, end; /* the message to it that is under way */
    int fds[3];        /* to send with the message's first byte */
    uint8_t message[HEADER_BYTES + PAYLOAD_MAX];
} branches[BRANCHES_MAX];

extern uint64_t branches_quiet_until_ns; /* gathering small pieces of output */

uint32_t branch_number(const struct branch *b);
void branch_attach(struct branch *b); /* marks it as having an interpreter, of which nothing is known yet */
void branch_detach(struct branch *b); /* closes pipes and socket */

/* Sends a message to the interpreter. It copies the payload. */
void branch_take_message(struct branch *b, uint8_t type, const uint8_t *payload, size_t size);
void branch_send_message(struct branch *b); /* goes on with it */

size_t branch_pump_text(struct branch *b, int stream, size_t most); /* returns how many bytes it sent */
bool branch_pump_said(struct branch *b); /* what it wrote before comes first; false: nothing now */

void branch_kill(struct branch *b);    /* the interpreter's process group; and reaps the interpreter */
void branch_hung_up(struct branch *b); /* an interpreter without its socket is useless: ends it */
void branch_conclude(struct branch *b); /* it ended: sends the rest of its messages and output, then ENDED */

#endif
