/* The names in a directory. */
#ifndef CODEFORGE_NAMES_H
#define CODEFORGE_NAMES_H

#include <stdint.h>

struct names {
    int dir; /* an open directory, which stays the caller's; read from its current offset */
    long at, have;
    int64_t offset; /* after the last name, for lseek() */
    _Alignas(8) char buffer[2048];
};

const char *next_name(struct names *n); /* NULL: no more */

#endif
