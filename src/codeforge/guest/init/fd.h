/* Descriptors and their owners. The variable that holds a descriptor owns it; -1 means closed. */
#ifndef CODEFORGE_FD_H
#define CODEFORGE_FD_H

#include <stddef.h>
#include <sys/types.h>

enum { CONTROL_FD = 3 /* where a worker finds its socket; init itself has nothing there */ };

/* init's ends of a program's stdin, stdout and stderr. */
struct pipes {
    int in, out[2];
};

#define NO_PIPES ((struct pipes){-1, {-1, -1}})

void close_fd(int *fd); /* Keeps errno. */
void close_fds(int *fds, int count);

/* Makes three pipes. The caller owns both sides; ours do not block. */
void open_pipes(struct pipes *ours, int theirs[3]);
void close_pipes(struct pipes *ours);
/* sendmsg(), with three descriptors attached to the first byte unless fds is NULL. They stay the caller's. */
ssize_t send_with_fds(int socket, const void *bytes, size_t size, const int fds[3]);

/* Returns the pipes and leaves *from closed: the caller owns them now. */
struct pipes take_pipes(struct pipes *from);

#endif
