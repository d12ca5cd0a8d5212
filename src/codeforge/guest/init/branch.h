/* A branch of a session: one interpreter, its pipes, its socket, its files. */
#ifndef CODEFORGE_BRANCH_H
#define CODEFORGE_BRANCH_H

#include "init.h"

enum { MESSAGE_MAX = PAYLOAD_MAX, SMALL_READ = 4096, HEAD_BYTES = 5 /* of TEXT: its number and the stream */ };

extern struct branch {
    bool exists; /* it has files: from START or FORK to FORGET */
    int files;
    bool there; /* and an interpreter */
    pid_t pid;  /* 0: it has not said anything yet */
    bool ended;
    int status, control, out[2];
    size_t start, end; /* of the message under way */
    int fds[3];        /* that go with its first byte; -1: none */
    uint8_t message[HEADER_BYTES + MESSAGE_MAX];
} branches[BRANCHES_MAX];

extern uint64_t quiet_until_ns; /* small pieces of output are gathered until then */

uint32_t number_of(const struct branch *b);
void begin(struct branch *b);             /* it is to get an interpreter */
size_t pump_text(struct branch *b, int stream, size_t most);
bool pump_said(struct branch *b);         /* and before that what it wrote */
void take_message(struct branch *b, uint8_t type, const uint8_t *payload, size_t size);
void send_message(struct branch *b);
void end_now(struct branch *b);           /* the interpreter, and what it started that is in its process group */
void hung_up(struct branch *b);           /* an interpreter without its socket is of no use */
void conclude(struct branch *b);          /* it ended: send what is left, and say so */
void let_go(struct branch *b);

#endif
