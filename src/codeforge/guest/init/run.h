/* One run, from GO to CLEAN or DONE. */
#ifndef CODEFORGE_RUN_H
#define CODEFORGE_RUN_H

#include "frame.h"

#include <stdbool.h>
#include <sys/types.h>

enum go_flag { GO_FRESH = 1 /* in a new process, even if a worker waits */, GO_KEEP = 2 /* for another run */ };

enum { TOKEN_BYTES = 16 };

bool run_active(void); /* between GO and its end */
bool run_ended(void);  /* its first process has ended: time for run_end() */

void run_go(const struct frame *f); /* with the gathered command */
void run_process_ended(pid_t pid, int status);
/* Kills the remaining processes, reports, and sends files. Returns only if another run may follow. */
void run_end(bool keep);

#endif
