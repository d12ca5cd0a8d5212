/* Processes: starting, reaping and killing them. */
#ifndef CODEFORGE_PROCESS_H
#define CODEFORGE_PROCESS_H

#include "command.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

extern int process_signals; /* readable when a child has ended: time for processes_reap() */

/* Blocks SIGCHLD. From then on, ended() is called for every child that is reaped. */
void processes_watch(void (*ended)(pid_t pid, int status));

/* Starts the command, and clears it. The descriptors stay the caller's; control -1: none. */
pid_t process_start(struct command *c, const int stdio[3], int control, bool template);

void processes_reap(void);
void processes_kill_all(void);           /* and reaps: init is alone then */
int processes_kill_others(pid_t spared); /* a single pass over /proc: how many it found, or -1 */
uint64_t children_cpu_us(void);          /* of all children that were reaped */

#endif
