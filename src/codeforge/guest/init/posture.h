/* What the kernel says about this sandbox. */
#ifndef CODEFORGE_POSTURE_H
#define CODEFORGE_POSTURE_H

#include <stddef.h>
#include <stdint.h>

/* Writes the posture as KEY=VALUE lines and returns its size. */
size_t posture(char *into, size_t size);

/* From this sandbox's cgroup, v1 or v2. 0 where the kernel does not tell. */
uint64_t memory_peak_bytes(void);
uint64_t task_count(void); /* processes and threads, init's own included */
uint32_t oom_kill_count(void);
uint32_t pids_refused_count(void); /* forks and threads above the limit */

/* Sockets in this sandbox's network. *ports: those in TIME_WAIT, which stay taken for a minute. */
uint64_t socket_count(uint64_t *ports);

#endif
