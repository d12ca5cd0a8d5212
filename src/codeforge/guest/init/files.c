/* Files into and out of the working directory, /code.
 *
 * Files come out only after everything else in the sandbox is dead, so that nothing can swap a name
 * between check and use. Even so no link is followed: every step is openat() with O_NOFOLLOW from a
 * directory that is open already, and only a regular file with one name is read. */
#include "files.h"

#include "channel.h"
#include "fd.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INPUTS_MAX = 4096 };

/* The inputs. A file that still has this inode, name and content is not the run's. Times would not tell:
 * a run can set them, and tmpfs does not record every write through a mapping. */
static struct input {
    ino_t inode;
    off_t size;
    uint64_t name, content;
} inputs[INPUTS_MAX];
static int input_count;

static uint64_t hash(const void *bytes, size_t size)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (const uint8_t *p = bytes; size--; p++)
        h = (h ^ *p) * 1099511628211u;
    return h;
}

/* Hashes a file from its start, one buffer at a time. */
static uint64_t hash_content(int fd)
{
    static uint64_t words[8192];
    uint64_t h = 14695981039346656037u;
    off_t at = 0;
    for (ssize_t n; (n = pread(fd, words, sizeof words, at)) > 0; at += n) {
        memset((char *)words + n, 0, (size_t)(-n & 7));
        for (ssize_t i = 0; i < (n + 7) / 8; i++) {
            h = (h ^ words[i]) * 1099511628211u;
            h ^= h >> 32;
        }
    }
    return h ^ (uint64_t)at;
}

int file_parent(int root, char *name, char **last, bool make)
{
    int dir = openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char *part = name;
    for (char *slash; dir >= 0 && (slash = strchr(part, '/')); part = slash + 1) {
        *slash = 0;
        int next = -1;
        if (strcmp(part, "..") == 0)
            errno = EINVAL;
        else if (!make || mkdirat(dir, part, 0755) == 0 || errno == EEXIST)
            next = openat(dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close_fd(&dir);
        dir = next;
    }
    *last = part;
    if (dir >= 0 && strcmp(part, "..") == 0) {
        close_fd(&dir);
        errno = EINVAL;
    }
    return dir;
}

int file_create(const uint8_t *path, size_t size, uint32_t mode)
{
    char name[PATH_BYTES], *last;
    if (size == 0 || size >= sizeof name || memchr(path, 0, size) || input_count == INPUTS_MAX) {
        errno = EINVAL;
        return -1;
    }
    memcpy(name, path, size);
    name[size] = 0;
    int dir = file_parent(AT_FDCWD, name, &last, true);
    if (dir < 0)
        return -1;
    int fd = openat(dir, last, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0777);
    close_fd(&dir);
    return fd;
}

void file_close(int fd, const uint8_t *path, size_t size)
{
    struct stat st;
    if (fstat(fd, &st) == 0)
        inputs[input_count++] = (struct input){st.st_ino, st.st_size, hash(path, size), hash_content(fd)};
    close(fd);
}

void files_forget(void)
{
    input_count = 0;
}

static bool is_untouched_input(int fd, const struct stat *st, const char *path)
{
    uint64_t name = hash(path, strlen(path));
    for (int i = 0; i < input_count; i++)
        if (inputs[i].inode == st->st_ino && inputs[i].name == name)
            return inputs[i].size == st->st_size && inputs[i].content == hash_content(fd);
    return false;
}

static struct {
    dev_t device;
    uint64_t bytes_left;
    uint32_t files_left;
    bool full; /* SKIP_TOO_MANY was sent, and nothing else will be */
    char path[PATH_BYTES];
} walk;

static void skip(enum skip_reason reason)
{
    if (walk.full)
        return;
    if (walk.files_left == 0) {
        walk.full = true;
        reason = SKIP_TOO_MANY;
    } else
        walk.files_left--;
    size_t size = strlen(walk.path);
    channel_wait_room(1 + size);
    uint8_t *p = outbox_payload(&outbox);
    *p = (uint8_t)reason;
    memcpy(p + 1, walk.path, size);
    outbox_commit(&outbox, F_SKIPPED, 1 + size);
}

static void send_file(int fd, const struct stat *st)
{
    size_t size = strlen(walk.path);
    channel_wait_room(4 + size);
    memcpy(put_u32(outbox_payload(&outbox), st->st_mode & 0777), walk.path, size);
    outbox_commit(&outbox, F_OUTFILE, 4 + size);
    walk.files_left--;
    for (uint64_t left = (uint64_t)st->st_size; left;) {
        channel_wait_room(PAYLOAD_MAX);
        ssize_t n = read(fd, outbox_payload(&outbox), left < PAYLOAD_MAX ? left : PAYLOAD_MAX);
        if (n <= 0)
            return;
        outbox_commit(&outbox, F_OUTDATA, (size_t)n);
        left -= (uint64_t)n;
        walk.bytes_left -= (uint64_t)n;
    }
}

static void visit_file(int dir, const char *name)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        skip(SKIP_UNREADABLE);
    else if (!S_ISREG(st.st_mode) || st.st_dev != walk.device)
        skip(SKIP_NOT_REGULAR);
    else if (is_untouched_input(fd, &st, walk.path))
        ;
    else if (st.st_nlink != 1)
        skip(SKIP_LINKED);
    else if (walk.files_left == 0)
        skip(SKIP_TOO_MANY);
    else if ((uint64_t)st.st_size > walk.bytes_left)
        skip(SKIP_TOO_LARGE);
    else
        send_file(fd, &st);
    close_fd(&fd);
}

static void visit(int dir, int depth)
{
    struct names names = {.dir = dir};
    size_t base = strlen(walk.path);
    for (const char *name; !walk.full && (name = next_name(&names));) {
        int length = snprintf(walk.path + base, sizeof walk.path - base, "%s%s", base ? "/" : "", name);
        struct stat st;
        if (length < 0 || (size_t)length >= sizeof walk.path - base) {
            walk.path[base] = 0;
            skip(SKIP_TOO_DEEP);
        } else if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
            skip(SKIP_UNREADABLE);
        else if (S_ISREG(st.st_mode))
            visit_file(dir, name);
        else if (!S_ISDIR(st.st_mode) || st.st_dev != walk.device)
            skip(SKIP_NOT_REGULAR);
        else if (depth == DIRECTORIES_DEEP_MAX)
            skip(SKIP_TOO_DEEP);
        else {
            int next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (next < 0)
                skip(SKIP_UNREADABLE);
            else {
                visit(next, depth + 1);
                close(next);
            }
        }
        walk.path[base] = 0;
    }
}

void files_collect(uint64_t max_bytes, uint32_t max_files)
{
    struct stat st;
    int dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    walk.bytes_left = max_bytes;
    walk.files_left = max_files;
    walk.full = false;
    walk.path[0] = 0;
    if (dir < 0 || fstat(dir, &st)) {
        skip(SKIP_UNREADABLE); /* the empty path: /code itself */
        return;
    }
    walk.device = st.st_dev;
    visit(dir, 0);
    close(dir);
}
