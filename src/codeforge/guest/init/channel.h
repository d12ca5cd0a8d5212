/* The channel to the host, and the ways for init to end. */
#ifndef CODEFORGE_CHANNEL_H
#define CODEFORGE_CHANNEL_H

#include "frame.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

/* Output in pieces smaller than SMALL_READ is gathered for a moment, so that a program that prints single
 * characters does not cost a frame for each. */
enum { SMALL_READ = 4096, GATHER_NS = 1000000 };

extern int channel_in, channel_out;
extern struct outbox outbox;

/* Moves the channel from descriptors 0 and 1, which a run gets pipes for, and closes everything else. */
void channel_take_over(void);

/* Reads what the host sent and calls obey() with each whole frame. Never waits. */
void channel_receive(void (*obey)(const struct frame *f));
/* Waits until the outbox has room for this payload, and drops what the host sends meanwhile: the run is over. */
void channel_wait_room(size_t payload);
/* Likewise, but leaves what the host sends in the channel. */
void channel_make_room(size_t payload);
void channel_flush(void); /* Sends what the host takes now. */

/* poll() until something is ready or wake_ns (UINT64_MAX: never). Ends init at the time set by expire. */
void channel_poll(struct pollfd *fds, nfds_t count, uint64_t wake_ns);
/* init gives up then: no host is left. UINT64_MAX: never. */
void channel_expire_at(uint64_t ns);

/* Sends the rest of the outbox, waits until the host hangs up, and exits. */
_Noreturn void finish(int code);

#endif
