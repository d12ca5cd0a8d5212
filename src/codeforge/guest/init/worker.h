/* The worker: an interpreter that was started in advance and waits. */
#ifndef CODEFORGE_WORKER_H
#define CODEFORGE_WORKER_H

#include "fd.h"
#include "frame.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum worker_kind { ONE_RUN /* becomes the run, or a branch */, TEMPLATE /* forks the runs */ };

enum worker_task { WAITS, BECOMES_RUN, BECOMES_BRANCH, FORKS_RUN };

struct worker {
    pid_t pid; /* 0: there is none */
    enum worker_kind kind;
    enum worker_task task;
    bool ended;
    int status;         /* once it ended */
    int control;        /* init's end of its socket */
    struct pipes pipes; /* of ONE_RUN, until it becomes something */
    unsigned steps;     /* sent to it and not done yet */
    struct {            /* the run that a template forked last, as the template reports it */
        pid_t pid;
        bool ended;
        int status;
    } forked;
    uint64_t reported_us; /* CPU time of the runs that a template forked and reaped */
};

extern struct worker worker;

void worker_start(enum worker_kind kind); /* with the gathered command */
void worker_process_ended(pid_t pid, int status);
void worker_drop(void);   /* kills everything that runs, and closes what init holds of the worker */
void worker_forget(void); /* closes what init holds of it; its process is dead, or dies soon */

void worker_preload(const struct frame *f);
/* Each sends the gathered command. */
struct pipes worker_become_run(void);      /* the caller owns the pipes */
void worker_become_branch(void);           /* once worker_send() is done, worker_take() */
void worker_fork_run(const int theirs[3]); /* takes the descriptors, and closes them once they are sent */
/* Hands the process, its socket and its pipes to the caller: there is no worker then. */
struct worker worker_take(void);

struct pollfd worker_poll(void); /* for its socket */
bool worker_send(void);          /* true: everything is sent */
void worker_receive(void);

#endif
