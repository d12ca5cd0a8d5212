/* What the host does with a branch's files. */
#ifndef CODEFORGE_SESSION_FILES_H
#define CODEFORGE_SESSION_FILES_H

#include "clock.h"
#include "frame.h"

enum { FILES_ANSWER_MAX = PAYLOAD_MAX - 4 };

/* For empty_directory(): programs may make new entries meanwhile, and the host waits for an answer. */
static const uint64_t REMOVING_NS = MS_NS(2000);

/* Writes an answer of at most FILES_ANSWER_MAX bytes, and its size. Returns 0 or errno. */
int files_request(int root, const uint8_t *request, size_t size, uint8_t *answer, size_t *answer_size);
/* Copies the contents of one directory into an empty one. Returns 0 or errno. */
int files_copy(int from, int into);

#endif
