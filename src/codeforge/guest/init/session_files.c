/* What the host does with a branch's files while its programs run: read, write, list, stat, remove.
 *
 * Every step is an openat() with O_NOFOLLOW from the branch's own directory, which is open already, so no
 * link leads out of it whatever the programs do meanwhile. Each request is for one piece and names the file
 * again: init remembers nothing between requests. */
#include "session_files.h"

#include "empty.h"
#include "fd.h"
#include "files.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ = 'r', WRITE = 'w', LIST = 'l', STAT = 's', REMOVE = 'd' };

enum { ENTRY_BYTES = 23, NAME_BYTES = 256 };

/* A request has a type, numbers and a path. For LIST and STAT the path may be empty: the root itself. */
struct request {
    int root;
    const uint8_t *rest; /* after the path */
    size_t rest_size;
    char path[PATH_BYTES];
};

static int parse(struct request *r, const uint8_t *from, size_t size, bool sized)
{
    size_t length = size;
    if (sized) {
        if (size < 2)
            return EINVAL;
        length = (size_t)from[0] | (size_t)from[1] << 8;
        from += 2;
        size -= 2;
    }
    if (length > size || length >= sizeof r->path || memchr(from, 0, length))
        return EINVAL;
    memcpy(r->path, from, length);
    r->path[length] = 0;
    r->rest = from + length;
    r->rest_size = size - length;
    return 0;
}

/* Opens what the path names. -1 and errno. */
static int open_path(struct request *r, int flags, uint32_t mode, bool make)
{
    char *last;
    int dir = file_parent(r->root, r->path, &last, make);
    if (dir < 0)
        return -1;
    int fd = openat(dir, last, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode & 0777);
    close_fd(&dir);
    return fd;
}

/* Opens a directory, never through a link, which gVisor's kernel follows in spite of O_NOFOLLOW. */
static int open_directory(int dir, const char *name)
{
    struct stat st;
    int found = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), fd = -1;
    if (found < 0)
        return -1;
    if (fstat(found, &st) == 0 && S_ISDIR(st.st_mode))
        fd = openat(found, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    else
        errno = ENOTDIR;
    close_fd(&found);
    return fd;
}

/* 0 for a regular file, else errno. Pipes and devices are refused: they could block, or do anything. */
static int check_regular(int fd, struct stat *st)
{
    if (fd < 0)
        return errno;
    if (fstat(fd, st))
        return errno;
    return S_ISDIR(st->st_mode) ? EISDIR : S_ISREG(st->st_mode) ? 0 : EACCES;
}

/* u64 offset, u32 size, path. The answer: bytes from there, none at the end. */
static int read_piece(struct request *r, const uint8_t *p, size_t size, uint8_t *answer, size_t *answered)
{
    struct stat st;
    if (size < 12 || parse(r, p + 12, size - 12, false))
        return EINVAL;
    size_t want = get_u32(p + 8);
    int fd = open_path(r, O_RDONLY, 0, false), error = check_regular(fd, &st);
    if (!error) {
        ssize_t n = pread(fd, answer, want < FILES_ANSWER_MAX ? want : FILES_ANSWER_MAX, (off_t)get_u64(p));
        error = n < 0 ? errno : 0;
        *answered = n < 0 ? 0 : (size_t)n;
    }
    close_fd(&fd);
    return error;
}

static int write_all(int fd, const uint8_t *from, size_t size, off_t at)
{
    for (ssize_t n; size; from += n, size -= (size_t)n, at += n)
        if ((n = pwrite(fd, from, size, at)) < 0)
            return errno;
    return 0;
}

/* u64 offset, u32 mode, u16 size of the path, path, bytes. Offset 0 makes or empties the file. */
static int write_piece(struct request *r, const uint8_t *p, size_t size)
{
    struct stat st;
    if (size < 12 || parse(r, p + 12, size - 12, true) || !*r->path)
        return EINVAL;
    off_t at = (off_t)get_u64(p);
    int fd = open_path(r, O_WRONLY | (at ? 0 : O_CREAT), get_u32(p + 8), at == 0), error = check_regular(fd, &st);
    if (!error && at == 0 && (ftruncate(fd, 0) || fchmod(fd, get_u32(p + 8) & 0777)))
        error = errno;
    if (!error)
        error = write_all(fd, r->rest, r->rest_size, at);
    close_fd(&fd);
    return error;
}

static uint8_t type_of(mode_t mode)
{
    return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'o';
}

/* u8 type (f, d, l, o), u64 size, u64 modification time in ns, u32 mode, u16 size of the name, name. */
static size_t put_entry(uint8_t *into, const struct stat *st, const char *name)
{
    size_t length = strlen(name);
    uint8_t *p = into;
    *p++ = type_of(st->st_mode);
    p = put_u64(p, (uint64_t)st->st_size);
    p = put_u64(p, (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec);
    p = put_u32(p, st->st_mode & 07777);
    *p++ = (uint8_t)length;
    *p++ = (uint8_t)(length >> 8);
    memcpy(p, name, length);
    return ENTRY_BYTES + length;
}

/* u64 where to begin (0: the start), path. The answer: u64 where to go on (0: at the end), entries. */
static int list(struct request *r, const uint8_t *p, size_t size, uint8_t *answer, size_t *answered)
{
    if (size < 8 || parse(r, p + 8, size - 8, false))
        return EINVAL;
    char *last;
    int parent = file_parent(r->root, r->path, &last, false);
    struct names names = {.dir = parent < 0 ? -1 : open_directory(parent, *last ? last : ".")};
    close_fd(&parent);
    struct stat st;
    if (names.dir < 0 || lseek(names.dir, (off_t)get_u64(p), SEEK_SET) < 0) {
        int error = errno;
        close_fd(&names.dir);
        return error;
    }
    uint64_t rest = 0;
    size_t at = 8;
    for (const char *name; (name = next_name(&names));) {
        if (fstatat(names.dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            at += put_entry(answer + at, &st, name);
        if (at + ENTRY_BYTES + NAME_BYTES > FILES_ANSWER_MAX) {
            rest = (uint64_t)names.offset;
            break;
        }
    }
    put_u64(answer, rest);
    *answered = at;
    close_fd(&names.dir);
    return 0;
}

/* path. The answer: one entry, with an empty name. */
static int stat_path(struct request *r, const uint8_t *p, size_t size, uint8_t *answer, size_t *answered)
{
    struct stat st;
    char *last;
    if (parse(r, p, size, false))
        return EINVAL;
    int dir = file_parent(r->root, r->path, &last, false), error = 0;
    if (dir < 0 || fstatat(dir, last, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        error = errno;
    else
        *answered = put_entry(answer, &st, "");
    close_fd(&dir);
    return error;
}

static int remove_directory(int parent, const char *name)
{
    int dir = open_directory(parent, name);
    if (dir < 0)
        return errno;
    empty_directory(dir, REMOVING_NS);
    close(dir);
    return unlinkat(parent, name, AT_REMOVEDIR) ? errno : 0;
}

/* path: a file, a link, or a directory and its contents. */
static int remove_path(struct request *r, const uint8_t *p, size_t size)
{
    char *last;
    if (parse(r, p, size, false) || !*r->path)
        return EINVAL;
    int dir = file_parent(r->root, r->path, &last, false), error = 0;
    if (dir < 0 || !*last)
        error = dir < 0 ? errno : EINVAL;
    else if (unlinkat(dir, last, 0))
        error = errno == EISDIR ? remove_directory(dir, last) : errno;
    close_fd(&dir);
    return error;
}

int files_request(int root, const uint8_t *request, size_t size, uint8_t *answer, size_t *answered)
{
    static struct request r;
    r.root = root;
    if (size == 0)
        return EINVAL;
    switch (*request) {
    case READ:
        return read_piece(&r, request + 1, size - 1, answer, answered);
    case WRITE:
        return write_piece(&r, request + 1, size - 1);
    case LIST:
        return list(&r, request + 1, size - 1, answer, answered);
    case STAT:
        return stat_path(&r, request + 1, size - 1, answer, answered);
    case REMOVE:
        return remove_path(&r, request + 1, size - 1);
    default:
        return EINVAL;
    }
}

/* --- Copies -------------------------------------------------------------------------------- */

/* Holes stay holes: a sparse file may be larger than the memory there is. */
static int copy_content(int from, int into, off_t size)
{
    static uint8_t piece[PAYLOAD_MAX];
    for (off_t at = 0;;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* a hole to the end */
            break;
        if (data > at)
            at = data;
        ssize_t n = pread(from, piece, sizeof piece, at);
        int error = n < 0 ? errno : write_all(into, piece, (size_t)n, at);
        if (error)
            return error;
        if (n == 0)
            break;
        at += n;
    }
    return ftruncate(into, size) ? errno : 0;
}

static int copy_file(int from, int into, const char *name, const struct stat *st)
{
    int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat opened;
    int error = check_regular(source, &opened), target = -1;
    if (!error) {
        target = openat(into, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        error = target < 0 ? errno : copy_content(source, target, opened.st_size);
    }
    if (!error) {
        struct timespec times[] = {st->st_atim, st->st_mtim};
        fchmod(target, st->st_mode & 0777);
        futimens(target, times);
    }
    close_fd(&source);
    close_fd(&target);
    return error;
}

static int copy_link(int from, int into, const char *name)
{
    char target[PATH_BYTES];
    ssize_t n = readlinkat(from, name, target, sizeof target - 1);
    if (n < 0)
        return errno;
    target[n] = 0;
    return symlinkat(target, into, name) ? errno : 0;
}

static int copy_tree(int from, int into, int depth);

static int copy_directory(int from, int into, const char *name, const struct stat *st, int depth)
{
    if (depth == DIRECTORIES_DEEP_MAX)
        return ENAMETOOLONG;
    int source = open_directory(from, name), target = -1;
    int error = source < 0 || mkdirat(into, name, 0700) ? errno : 0;
    if (!error) {
        target = open_directory(into, name);
        error = target < 0 ? errno : copy_tree(source, target, depth + 1);
    }
    if (!error)
        fchmod(target, st->st_mode & 0777);
    close_fd(&source);
    close_fd(&target);
    return error;
}

/* Leaves out pipes, sockets and devices: they belong to processes, which are not copied. */
static int copy_tree(int from, int into, int depth)
{
    struct names names = {.dir = from};
    lseek(from, 0, SEEK_SET);
    for (const char *name; (name = next_name(&names));) {
        struct stat st;
        int error = 0;
        if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW))
            continue; /* it is gone meanwhile */
        if (S_ISREG(st.st_mode))
            error = copy_file(from, into, name, &st);
        else if (S_ISDIR(st.st_mode))
            error = copy_directory(from, into, name, &st, depth);
        else if (S_ISLNK(st.st_mode))
            error = copy_link(from, into, name);
        if (error && error != ENOENT)
            return error;
    }
    return 0;
}

int files_copy(int from, int into)
{
    return copy_tree(from, into, 0);
}
