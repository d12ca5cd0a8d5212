/* Between two runs in one sandbox: nothing that the run left may be there for the next one.
 *
 * Called with nothing else alive but the template, so that nothing changes under its hands. It removes,
 * then it looks: a sandbox in which anything is not as it was before the first run is not used again. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum {
    IDS_MAX = 4096,
    SOCKETS_MS = 100,
};

/* For all that is removed in one go: in a session, programs can make new ones meanwhile, without end. */
static const uint64_t REMOVING_NS = 2000u * 1000 * 1000;

static struct place { /* where a run can leave something */
    const char *path;
    bool there;
    struct state { /* all of one width: compared as bytes */
        uint64_t device, inode, mode, group, links, size;
        uint64_t free_blocks, free_inodes; /* of the file system: of open and unlinked files, too */
        uint64_t attributes, flags;        /* the size of their list; chattr's */
    } before;
} places[] = {{.path = "/code"}, {.path = "/tmp"}, {.path = "/dev/shm"}, {.path = "/dev/mqueue"}};

enum { PLACES = sizeof places / sizeof *places };

static uint64_t sockets_before;

static int open_place(const struct place *p)
{
    return open(p->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static bool look(int dir, struct state *s)
{
    struct stat st;
    struct statvfs fs;
    unsigned flags = 0;
    if (fstat(dir, &st) || fstatvfs(dir, &fs))
        return false;
    ioctl(dir, FS_IOC_GETFLAGS, &flags); /* not every file system has them */
    *s = (struct state){.device = st.st_dev, .inode = st.st_ino, .mode = st.st_mode, .group = st.st_gid,
                        .links = st.st_nlink, .size = (uint64_t)st.st_size,
                        .free_blocks = fs.f_bfree, .free_inodes = fs.f_ffree,
                        .attributes = (uint64_t)flistxattr(dir, NULL, 0), .flags = flags};
    return true;
}

void clean_remember(void)
{
    for (struct place *p = places; p < places + PLACES; p++) {
        int dir = access(p->path, W_OK) ? -1 : open_place(p); /* what cannot be written to stays clean */
        p->there = dir >= 0 && look(dir, &p->before);
        close_end(&dir);
    }
    uint64_t ports;
    sockets_before = socket_count(&ports);
}

/* Under a name that is not taken; some may be, by the run. */
static bool move(int dir, const char *name, int root)
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

/* Removes what is in dir; its directories are moved up into root first, so that depth does not matter. */
static void empty(int dir, int root, uint64_t until_ns)
{
    struct names names = {.dir = dir};
    lseek(dir, 0, SEEK_SET);
    for (const char *name; now_ns() < until_ns && (name = next_name(&names));)
        if (unlinkat(dir, name, 0) && dir != root && (errno != EISDIR || !move(dir, name, root)))
            return;
}

/* Opens a directory that is in root; -1 when there is none, or no time left. */
static int open_directory(int root, char path[256], uint64_t until_ns)
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

void empty_directory(int root)
{
    char path[256];
    uint64_t until_ns = now_ns() + REMOVING_NS;
    empty(root, root, until_ns);
    for (int dir; (dir = open_directory(root, path, until_ns)) >= 0;) {
        empty(dir, root, until_ns);
        close(dir);
        if (unlinkat(root, path, AT_REMOVEDIR))
            return; /* what is seen afterwards says that it is not clean */
    }
}

/* Attributes and default ACLs of the place itself would be in force for the next run's files. */
static void strip_attributes(int dir, unsigned flags)
{
    char names[4096];
    ssize_t size = flistxattr(dir, names, sizeof names);
    for (ssize_t at = 0; at < size; at += (ssize_t)strlen(names + at) + 1)
        fremovexattr(dir, names + at);
    ioctl(dir, FS_IOC_SETFLAGS, &flags);
}

static bool clean_place(const struct place *p)
{
    mode_t mode = p->before.mode & 07777;
    struct state after = {0};
    chmod(p->path, mode);
    int dir = open_place(p);
    if (dir < 0)
        return false;
    empty_directory(dir);
    strip_attributes(dir, (unsigned)p->before.flags);
    fchmod(dir, mode);
    futimens(dir, NULL);
    bool clean = look(dir, &after) && memcmp(&after, &p->before, sizeof after) == 0;
    close(dir);
    return clean;
}

/* System V IPC, of which the run is the only user: the namespace is the sandbox's. */
static bool clean_ipc(void)
{
    struct shm_info shm;
    struct shmid_ds shm_ds;
    struct msginfo msg;
    struct msqid_ds msg_ds;
    union {
        struct seminfo *info;
        struct semid_ds *ds;
    } sem = {0};
    struct seminfo sem_info;
    struct semid_ds sem_ds;
    int last = shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&shm);
    for (int i = 0; i <= last && i < IDS_MAX; i++) {
        int id = shmctl(i, SHM_STAT_ANY, &shm_ds);
        if (id >= 0)
            shmctl(id, IPC_RMID, NULL);
    }
    last = msgctl(0, MSG_INFO, (struct msqid_ds *)(void *)&msg);
    for (int i = 0; i <= last && i < IDS_MAX; i++) {
        int id = msgctl(i, MSG_STAT_ANY, &msg_ds);
        if (id >= 0)
            msgctl(id, IPC_RMID, NULL);
    }
    sem.info = &sem_info;
    last = semctl(0, 0, SEM_INFO, sem);
    for (int i = 0; i <= last && i < IDS_MAX; i++) {
        sem.ds = &sem_ds;
        int id = semctl(i, 0, SEM_STAT_ANY, sem);
        if (id >= 0)
            semctl(id, 0, IPC_RMID);
    }
    sem.info = &sem_info;
    return shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&shm) >= 0 && shm.used_ids == 0 &&
           msgctl(0, MSG_INFO, (struct msqid_ds *)(void *)&msg) >= 0 && msg.msgpool == 0 &&
           semctl(0, 0, SEM_INFO, sem) >= 0 && sem_info.semusz == 0;
}

/* The kernel frees some a moment after their last descriptor is closed. */
static bool clean_sockets(void)
{
    uint64_t allowed = sockets_before + (worker.pid ? 2 : 0);
    for (int waited_ms = 0; waited_ms < SOCKETS_MS; waited_ms++) {
        uint64_t ports, sockets = socket_count(&ports);
        if (sockets <= allowed && ports == 0)
            return true;
        nanosleep(&(struct timespec){0, 1000 * 1000}, NULL);
    }
    return false;
}

const char *clean(void)
{
    for (const struct place *p = places; p < places + PLACES; p++)
        if (p->there && !clean_place(p))
            return p->path;
    if (!clean_ipc())
        return "System V IPC";
    return clean_sockets() ? NULL : "sockets";
}
