/* What worker.c needs of the rest of init, played: no process is started, and giving up is a jump back. */
#ifndef CODEFORGE_WORKER_STUBS_H
#define CODEFORGE_WORKER_STUBS_H

#include "init.h"

#include <fcntl.h>
#include <setjmp.h>
#include <unistd.h>

enum { SOME_PID = 42 };

struct outbox outbox;
struct run run;
struct command command;
static jmp_buf gave_up;

static int worker_end = -1; /* of the socket */

void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void open_pipes(int theirs[3])
{
    for (int i = 0; i < 3; i++)
        theirs[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
}

pid_t start_command(int in, int out, int err, int control, bool template)
{
    (void)in, (void)out, (void)err, (void)template;
    worker_end = fcntl(control, F_DUPFD_CLOEXEC, 0);
    fcntl(worker_end, F_SETFL, O_NONBLOCK);
    command_clear(&command);
    return SOME_PID;
}

void kill_everything(void)
{
}

void session_adopt_worker(void)
{
    worker_hang_up();
}

void fail(const char *format, ...)
{
    (void)format;
    longjmp(gave_up, 1);
}

#endif
