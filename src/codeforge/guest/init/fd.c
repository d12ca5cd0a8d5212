/* Descriptors and their owners. */
#include "fd.h"

#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void close_fd(int *fd)
{
    int before = errno;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = before;
}

void close_fds(int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close_fd(fds + i);
}

void open_pipes(struct pipes *ours, int theirs[3])
{
    int in[2], out[2], err[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
        fail("pipe: %s", strerror(errno));
    memcpy(theirs, (int[]){in[0], out[1], err[1]}, 3 * sizeof *theirs);
    *ours = (struct pipes){in[1], {out[0], err[0]}};
    fcntl(ours->in, F_SETFL, O_NONBLOCK);
    fcntl(ours->out[0], F_SETFL, O_NONBLOCK);
    fcntl(ours->out[1], F_SETFL, O_NONBLOCK);
}

void close_pipes(struct pipes *ours)
{
    close_fd(&ours->in);
    close_fds(ours->out, 2);
}

struct pipes take_pipes(struct pipes *from)
{
    struct pipes taken = *from;
    *from = NO_PIPES;
    return taken;
}

ssize_t send_with_fds(int socket, const void *bytes, size_t size, const int fds[3])
{
    enum { FDS_BYTES = 3 * sizeof(int) };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_BYTES)];
    } control = {0};
    struct iovec piece = {(void *)bytes, size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fds) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(FDS_BYTES);
        memcpy(CMSG_DATA(c), fds, FDS_BYTES);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}
