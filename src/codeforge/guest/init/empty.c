/* Removes what is in a directory, at any depth, without recursion and without following links. */
#include "empty.h"

#include "clock.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Moves an entry up into root, under a name that is free; the run may have taken some. */
static bool move_up(int dir, const char *name, int root)
{
    static unsigned moved;
    char up[32];
    if (fchmodat(dir, name, 0700, 0)) /* to move a directory writes to it */
        return false;
    do
        snprintf(up, sizeof up, ".codeforge-%u", moved++);
    while (renameat(dir, name, root, up) && (errno == ENOTEMPTY || errno == EEXIST));
    return faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
}

/* Removes the entries of dir. Its directories move up into root first, so depth does not matter. */
static void remove_entries(int dir, int root, uint64_t until_ns)
{
    struct names names = {.dir = dir};
    lseek(dir, 0, SEEK_SET);
    for (const char *name; now_ns() < until_ns && (name = next_name(&names));)
        if (unlinkat(dir, name, 0) && dir != root && (errno != EISDIR || !move_up(dir, name, root)))
            return;
}

/* Opens a directory in root and writes its name. -1: there is none, or no time is left. */
static int open_next_directory(int root, char path[256], uint64_t until_ns)
{
    struct names names = {.dir = root};
    lseek(root, 0, SEEK_SET);
    for (const char *name; now_ns() < until_ns && (name = next_name(&names));) {
        struct stat st;
        if (fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode))
            continue;
        snprintf(path, 256, "%s", name);
        if (fchmodat(root, path, 0700, 0) == 0)
            return openat(root, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    return -1;
}

void empty_directory(int root, uint64_t most_ns)
{
    char path[256];
    uint64_t until_ns = now_ns() + most_ns;
    remove_entries(root, root, until_ns);
    for (int dir; (dir = open_next_directory(root, path, until_ns)) >= 0;) {
        remove_entries(dir, root, until_ns);
        close(dir);
        if (unlinkat(root, path, AT_REMOVEDIR))
            return;
    }
}
