/* Bytes between the host and the run. */
#ifndef CODEFORGE_STREAMS_H
#define CODEFORGE_STREAMS_H

#include "fd.h"
#include "frame.h"

#include <poll.h>

enum { STREAMS = 3 };

void streams_open(struct pipes ours); /* takes the pipes of a run */
void streams_close(void);             /* and forgets the run */

/* For the loop: what to wait for, and until when; then what to do about it. */
void streams_poll(struct pollfd fds[STREAMS], uint64_t *wake_ns);
void streams_serve(const struct pollfd fds[STREAMS]);

void streams_take_stdin(const struct frame *f);
void streams_drain(void); /* sends the rest of the output. Every process that could write must be dead. */

#endif
