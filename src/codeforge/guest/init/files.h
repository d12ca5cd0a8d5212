/* Files into and out of the working directory, /code. */
#ifndef CODEFORGE_FILES_H
#define CODEFORGE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATH_BYTES = 4096, DIRECTORIES_DEEP_MAX = 32 };

enum skip_reason { SKIP_NOT_REGULAR = 1, SKIP_LINKED, SKIP_TOO_LARGE, SKIP_TOO_MANY, SKIP_TOO_DEEP, SKIP_UNREADABLE };

/* Opens the directory that holds the last part of name, and points *last at that part. Cuts name up,
 * follows no link, and makes missing directories if asked. Returns a descriptor, the caller's to close,
 * or -1 and errno. */
int file_parent(int root, char *name, char **last, bool make);

/* Creates a file below the working directory, for writing. Returns a descriptor, which file_close() takes
 * back, or -1 and errno. */
int file_create(const uint8_t *path, size_t size, uint32_t mode);
/* Closes it and remembers it as an input, so that only what the run writes is sent back. */
void file_close(int fd, const uint8_t *path, size_t size);
void files_forget(void); /* forgets the inputs: their run is over */

/* Sends every file below the working directory that the run wrote. Nothing else may be alive. */
void files_collect(uint64_t max_bytes, uint32_t max_files);

#endif
