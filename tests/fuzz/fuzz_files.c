/* Files in and files out (files.c, names.c), in a directory of their own: any paths from the host, any tree.
 *
 * An input is a script in which each byte is an operation. Invariants:
 *   - nothing outside of that directory changes, and no link is followed;
 *   - every file that is sent is a regular file with one name, unchanged, and not an untouched input;
 *   - the limits on bytes and names hold, and every file is sent, reported or an input. */
#include "fuzz.h"
#include "channel.h"
#include "fail.h"
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMES_MAX = 1024, KEPT_BYTES = 5 };

static struct {
    char home[64]; /* holds "in" and a canary */
    char mentioned[NAMES_MAX][4096], inputs[NAMES_MAX][256];
    int mentions, input_count;
    bool touched; /* something other than file_create() changed the tree */
    bool too_many;
    uint64_t bytes;
    int file; /* being sent; -1: none */
} look;

/* --- Stubs for what files.c needs from init -------------------------------------------------------- */

struct outbox outbox;

void fail(const char *format, ...)
{
    (void)format;
    abort();
}

static void end_file(void)
{
    uint8_t more;
    HOLDS(look.file < 0 || read(look.file, &more, 1) == 0);
    if (look.file >= 0)
        close(look.file);
    look.file = -1;
}

/* Checks that a walk without links reaches the path. */
static void mention(const uint8_t *path, size_t size)
{
    char *name = look.mentioned[look.mentions++];
    struct stat st;
    HOLDS(look.mentions < NAMES_MAX && size < 4096 && size > 0 && path[0] != '/');
    memcpy(name, path, size);
    name[size] = 0;
    for (char *slash = name; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        HOLDS(lstat(name, &st) == 0 && S_ISDIR(st.st_mode));
        *slash = '/';
    }
    HOLDS(lstat(name, &st) == 0);
    for (int i = 0; i + 1 < look.mentions; i++)
        HOLDS(strcmp(look.mentioned[i], name) != 0);
}

static void take_frame(uint8_t type, const uint8_t *payload, size_t size)
{
    struct stat st;
    uint8_t expected[PAYLOAD_MAX];
    if (type != F_OUTDATA)
        end_file();
    switch (type) {
    case F_SKIPPED:
        look.too_many = look.too_many || payload[0] == SKIP_TOO_MANY;
        mention(payload + 1, size - 1);
        break;
    case F_OUTFILE:
        mention(payload + 4, size - 4);
        look.file = open(look.mentioned[look.mentions - 1], O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        HOLDS(look.file >= 0 && fstat(look.file, &st) == 0);
        HOLDS(S_ISREG(st.st_mode) && st.st_nlink == 1 && get_u32(payload) == (st.st_mode & 0777));
        break;
    default:
        HOLDS(type == F_OUTDATA && look.file >= 0 && size > 0);
        HOLDS(read(look.file, expected, size) == (ssize_t)size && memcmp(expected, payload, size) == 0);
        look.bytes += size;
    }
}

void channel_wait_room(size_t payload)
{
    for (size_t at = 0; at < outbox.end;) {
        size_t size = get_u32(outbox.bytes + at);
        take_frame(outbox.bytes[at + 4], outbox.bytes + at + HEADER_BYTES, size);
        at += HEADER_BYTES + size;
    }
    outbox.start = outbox.end = 0;
    HOLDS(outbox_room(&outbox) >= payload);
}

/* --- The directory ------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type;
    if (where->level && remove(path))
        abort();
    return 0;
}

static void make_home(void)
{
    strcpy(look.home, access("/dev/shm", W_OK) ? "/tmp/fuzz-files-XXXXXX" : "/dev/shm/fuzz-files-XXXXXX");
    if (!mkdtemp(look.home) || chdir(look.home) || mkdir("in", 0755))
        abort();
    int canary = open("canary", O_WRONLY | O_CREAT, 0600);
    if (canary < 0 || write(canary, "alive", KEPT_BYTES) != KEPT_BYTES || close(canary) || chdir("in"))
        abort();
    umask(022);
}

static void remove_home(void)
{
    if (chdir(look.home) == 0)
        nftw(".", remove_one, 16, FTW_DEPTH | FTW_PHYS);
    rmdir(look.home);
}

static void look_beside(void)
{
    char text[KEPT_BYTES + 1];
    int count = 0;
    DIR *home = opendir("..");
    HOLDS(home != NULL);
    while (readdir(home))
        count++;
    closedir(home);
    HOLDS(count == 4); /* . .. in canary */
    int canary = open("../canary", O_RDONLY);
    HOLDS(canary >= 0 && read(canary, text, sizeof text) == KEPT_BYTES && memcmp(text, "alive", KEPT_BYTES) == 0);
    close(canary);
}

static int depth_and_name(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    if (type == FTW_D || type == FTW_DNR || where->level > DIRECTORIES_DEEP_MAX + 1)
        return 0;
    const char *name = path + 2; /* "./" */
    for (int i = 0; i < look.mentions; i++)
        if (strcmp(look.mentioned[i], name) == 0)
            return 0;
    for (int i = 0; i < look.input_count; i++)
        if (strcmp(look.inputs[i], name) == 0)
            return 0;
    fprintf(stderr, "neither sent nor reported: %s\n", name);
    abort();
}

/* --- Operations ------------------------------------------------------------------------------------------- */

struct script {
    const uint8_t *at, *end;
};

static uint8_t next(struct script *s)
{
    return s->at < s->end ? *s->at++ : 0;
}

/* Often one of a few names, so that operations meet; otherwise bytes of the script. */
static size_t path_of(struct script *s, char path[256])
{
    static const char *const names[] = {"a", "b", "d", "d/a", "d/b", "d/d/a", "l/a", "../canary", "/a", "d/../a", "./a", "d//a", "..", "n", "../x", "d/../../x"};
    uint8_t which = next(s);
    size_t size = which % 24;
    if (size < sizeof names / sizeof *names) {
        strcpy(path, names[size]);
        return strlen(path);
    }
    size = next(s);
    if (size > (size_t)(s->end - s->at))
        size = (size_t)(s->end - s->at);
    memcpy(path, s->at, size);
    path[size] = 0;
    s->at += size;
    return size;
}

static void create(struct script *s)
{
    char path[256];
    size_t size = path_of(s, path);
    uint8_t data[300];
    int fd = file_create((uint8_t *)path, size, next(s) * 257u);
    if (fd < 0)
        return;
    HOLDS(memchr(path, 0, size) == NULL && path[0] != '/' && look.input_count < NAMES_MAX);
    memset(data, 'i', sizeof data);
    HOLDS(write(fd, data, next(s)) >= 0);
    file_close(fd, (uint8_t *)path, size);
    strcpy(look.inputs[look.input_count++], path);
    look.touched = look.touched || strstr(path, "./"); /* such a file comes back under another name; the host sends no such path */
}

/* Paths that the fuzzer itself must not change: it has no O_NOFOLLOW for every part. */
static bool leads_out(char *path)
{
    struct stat st;
    bool link = false;
    for (char *slash = path; (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        link = link || (lstat(path, &st) == 0 && S_ISLNK(st.st_mode));
        *slash = '/';
    }
    return link || path[0] == '/' || path[0] == 0 || strstr(path, "..");
}

/* Changes the tree as a run would. Errors are ignored. */
static void meddle(struct script *s, uint8_t how)
{
    static const char *const targets[] = {"..", "/", "../canary", ".", "a", "d"};
    char path[256], other[256];
    path_of(s, path);
    struct stat st;
    if (leads_out(path))
        return;
    look.touched = true;
    int fd = -1, ignored = 0;
    switch (how % 9) {
    case 0:
        fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_APPEND | O_CLOEXEC, 0600);
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            ignored = write(fd, targets, next(s) % sizeof targets) < 0;
        break;
    case 1:
        ignored = mkdir(path, 0700);
        break;
    case 2:
        ignored = symlink(targets[next(s) % 6], how & 16 ? "l" : path);
        break;
    case 3:
        path_of(s, other);
        if (!leads_out(other))
            ignored = link(other, path);
        break;
    case 4:
        ignored = mkfifo(path, 0600);
        break;
    case 5:
        if (lstat(path, &st) == 0 && S_ISREG(st.st_mode))
            ignored = truncate(path, (off_t)1 << next(s) % 60);
        break;
    case 6:
        ignored = remove(path);
        break;
    case 7:
        ignored = rename("a", path);
        break;
    default:
        for (int n = next(s) % 40, home = open(".", O_RDONLY | O_DIRECTORY); home >= 0;) {
            while (n-- > 0 && (mkdir("d", 0700) == 0 || errno == EEXIST) && lstat("d", &st) == 0 && S_ISDIR(st.st_mode) && chdir("d") == 0)
                ignored = mkfifo("f", 0600);
            HOLDS(fchdir(home) == 0);
            close(home);
            break;
        }
    }
    if (fd >= 0)
        close(fd);
    (void)ignored;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    static int before = -1, in = -1;
    if (before < 0) {
        before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        make_home();
        in = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        atexit(remove_home);
    }
    HOLDS(fchdir(in) == 0);
    look.mentions = look.input_count = 0;
    look.touched = look.too_many = false;
    look.bytes = 0;
    look.file = -1;
    outbox.start = outbox.end = 0;
    uint64_t most_bytes = next(&s) * 16u;
    uint32_t most_names = next(&s);
    most_names = most_names < 200 ? most_names : 900;
    for (int i = 0; i < 200 && s.at < s.end; i++) {
        uint8_t code = next(&s);
        if (code & 1)
            create(&s);
        else
            meddle(&s, code >> 1);
    }
    files_collect(most_bytes, most_names);
    channel_wait_room(0);
    end_file();
    files_forget();
    HOLDS(look.bytes <= most_bytes);
    HOLDS(look.mentions <= (int)most_names + 1);
    HOLDS(look.touched || look.mentions == 0);
    if (!look.too_many)
        nftw(".", depth_and_name, 16, FTW_PHYS);
    nftw(".", remove_one, 16, FTW_DEPTH | FTW_PHYS);
    look_beside();
    HOLDS(fchdir(before) == 0);
    return 0;
}
