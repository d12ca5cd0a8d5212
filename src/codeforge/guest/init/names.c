/* The names in a directory. The library's opendir() would allocate. */
#include "names.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct entry { /* struct linux_dirent64 */
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

const char *next_name(struct names *n)
{
    for (;;) {
        if (n->at >= n->have) {
            n->have = syscall(SYS_getdents64, n->dir, n->buffer, sizeof n->buffer);
            n->at = 0;
            if (n->have <= 0)
                return NULL;
        }
        const struct entry *e = (const struct entry *)(n->buffer + n->at);
        n->at += e->size;
        n->offset = e->offset;
        if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
            return e->name;
    }
}
