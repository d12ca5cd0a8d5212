/* Cleans the sandbox between two runs: nothing that a run left may be there for the next one.
 *
 * Nothing else but the template is alive meanwhile, so nothing changes underneath. init removes, then
 * looks: if anything differs from the state before the first run, the sandbox is not used again. */
#include "clean.h"

#include "clock.h"
#include "empty.h"
#include "fd.h"
#include "posture.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
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

/* For each place. A full one takes a fraction of this, and all together must not use up the time that the
 * host grants after EXIT (30 s). */
static const uint64_t EMPTYING_NS = MS_NS(5000);

static struct place { /* where a run can leave files */
    const char *path;
    bool there;
    struct state { /* fields of one width: compared as bytes */
        uint64_t device, inode, mode, group, links, size;
        uint64_t free_blocks, free_inodes; /* of the file system: open unlinked files count, too */
        uint64_t attributes, flags;        /* size of their list; chattr's flags */
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
    ioctl(dir, FS_IOC_GETFLAGS, &flags); /* not every file system has flags */
    *s = (struct state){.device = st.st_dev, .inode = st.st_ino, .mode = st.st_mode, .group = st.st_gid,
                        .links = st.st_nlink, .size = (uint64_t)st.st_size,
                        .free_blocks = fs.f_bfree, .free_inodes = fs.f_ffree,
                        .attributes = (uint64_t)flistxattr(dir, NULL, 0), .flags = flags};
    return true;
}

void clean_remember(void)
{
    for (struct place *p = places; p < places + PLACES; p++) {
        int dir = access(p->path, W_OK) ? -1 : open_place(p); /* a place that cannot be written to stays clean */
        p->there = dir >= 0 && look(dir, &p->before);
        close_fd(&dir);
    }
    uint64_t ports;
    sockets_before = socket_count(&ports);
}

/* Attributes and default ACLs of the place itself would apply to the next run's files. */
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
    empty_directory(dir, EMPTYING_NS);
    strip_attributes(dir, (unsigned)p->before.flags);
    fchmod(dir, mode);
    futimens(dir, NULL);
    bool clean = look(dir, &after) && memcmp(&after, &p->before, sizeof after) == 0;
    close(dir);
    return clean;
}

/* System V IPC. The namespace is the sandbox's, so the run is its only user. */
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
static bool clean_sockets(bool template_stays)
{
    uint64_t allowed = sockets_before + (template_stays ? 2 : 0); /* both ends of its control socket */
    for (int waited_ms = 0; waited_ms < SOCKETS_MS; waited_ms++) {
        uint64_t ports, sockets = socket_count(&ports);
        if (sockets <= allowed && ports == 0)
            return true;
        nanosleep(&(struct timespec){0, 1000 * 1000}, NULL);
    }
    return false;
}

bool clean(bool template_stays)
{
    for (const struct place *p = places; p < places + PLACES; p++)
        if (p->there && !clean_place(p))
            return false;
    return clean_ipc() && clean_sockets(template_stays);
}
