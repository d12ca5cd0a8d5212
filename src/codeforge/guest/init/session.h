/* Sessions: interpreters that stay and exchange messages with the host. */
#ifndef CODEFORGE_SESSION_H
#define CODEFORGE_SESSION_H

#include "frame.h"

#include <stdbool.h>
#include <sys/types.h>

bool session_active(void); /* since the first START */
void session_obey(const struct frame *f);
void session_process_ended(pid_t pid, int status);
_Noreturn void session_serve(void);
void session_serve_worker(short events); /* one step of it: what poll() saw at the worker's socket */

#endif
