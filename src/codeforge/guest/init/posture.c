/* Posture: what the kernel says about this sandbox. The host compares it with what it asked for. */
#include "posture.h"

#include <fcntl.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

static char text[16 * 1024]; /* one small file of /proc or /sys */

static bool slurp(const char *path)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    size_t used = 0;
    for (ssize_t n; used < sizeof text - 1 && (n = read(fd, text + used, sizeof text - 1 - used)) > 0;)
        used += (size_t)n;
    close(fd);
    text[used] = 0;
    return true;
}

/* The rest of the line that starts with key, without leading blanks; NULL if no line does. */
static char *value_of(const char *key)
{
    size_t n = strlen(key);
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) == 0)
            return line + n + strspn(line + n, " \t");
    }
    return NULL;
}

struct report {
    char *p, *end;
};

__attribute__((format(printf, 2, 3))) static void say(struct report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(r->p, (size_t)(r->end - r->p), format, args);
    va_end(args);
    if (n > 0 && n < r->end - r->p)
        r->p += n;
}

static void say_status(struct report *r)
{
    static const char *const keys[][2] = {
        {"seccomp", "Seccomp:"}, {"seccomp_filters", "Seccomp_filters:"},
        {"cap_inh", "CapInh:"},  {"cap_prm", "CapPrm:"},
        {"cap_eff", "CapEff:"},  {"cap_bnd", "CapBnd:"},
        {"cap_amb", "CapAmb:"},  {"groups", "Groups:"},
    };
    if (!slurp("/proc/self/status"))
        return;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = value_of(keys[i][1]);
        if (value)
            say(r, "%s=%.*s\n", keys[i][0], (int)strcspn(value, "\n"), value);
    }
}

/* gVisor's statvfs reports no flags; its table of mounts does. */
static unsigned long listed_flags(const char *path)
{
    static const struct {
        const char *option;
        unsigned long flag;
    } kinds[] = {{"ro", ST_RDONLY}, {"nosuid", ST_NOSUID}, {"nodev", ST_NODEV}, {"noexec", ST_NOEXEC}};
    unsigned long flags = 0;
    FILE *table = setmntent("/proc/self/mounts", "re");
    for (struct mntent *m; table && (m = getmntent(table));) {
        if (strcmp(m->mnt_dir, path))
            continue;
        flags = 0; /* the last one mounted there is on top */
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            flags |= hasmntopt(m, kinds[i].option) ? kinds[i].flag : 0;
    }
    if (table)
        endmntent(table);
    return flags;
}

static void say_mount(struct report *r, const char *key, const char *path)
{
    struct statvfs fs;
    if (statvfs(path, &fs))
        return;
    if (!(fs.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC)))
        fs.f_flag = listed_flags(path);
    say(r, "%s=%s%s%s%s\n", key, fs.f_flag & ST_RDONLY ? "ro" : "rw", fs.f_flag & ST_NOSUID ? ",nosuid" : "",
        fs.f_flag & ST_NODEV ? ",nodev" : "", fs.f_flag & ST_NOEXEC ? ",noexec" : "");
    say(r, "%s_bytes=%llu\n%s_inodes=%llu\n", key, (unsigned long long)fs.f_blocks * fs.f_frsize, key,
        (unsigned long long)fs.f_files);
}

static void say_interfaces(struct report *r)
{
    if (!slurp("/proc/net/dev"))
        return;
    say(r, "interfaces=");
    for (char *line = strtok(text, "\n"), *comma = ""; line; line = strtok(NULL, "\n")) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        line += strspn(line, " ");
        say(r, "%s%.*s", comma, (int)(colon - line), line);
        comma = ",";
    }
    say(r, "\n");
}

static void say_limits(struct report *r)
{
    static const struct {
        const char *key;
        int resource;
    } kinds[] = {
        {"core_max", RLIMIT_CORE},         {"nofile_max", RLIMIT_NOFILE},         {"fsize_max", RLIMIT_FSIZE},
        {"msgqueue_max", RLIMIT_MSGQUEUE}, {"sigpending_max", RLIMIT_SIGPENDING}, {"memlock_max", RLIMIT_MEMLOCK},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct rlimit l;
        if (!getrlimit((unsigned)kinds[i].resource, &l))
            say(r, "%s=%llu\n", kinds[i].key, (unsigned long long)l.rlim_max);
    }
}

/* Reads the file of cgroup v2, or else that of v1. NULL: that version has no such file. */
static bool slurp_cgroup(const char *v2, const char *v1)
{
    return slurp(v2) || slurp(v1);
}

static void say_cgroup(struct report *r, const char *key, const char *v2, const char *v1)
{
    if (slurp_cgroup(v2, v1))
        say(r, "%s=%.*s\n", key, (int)strcspn(text, "\n"), text);
}

size_t posture(char *into, size_t size)
{
    struct report r = {into, into + size};
    say(&r, "protocol=5\npid=%d\nuid=%d\ngid=%d\ndumpable=%d\nno_new_privs=%d\n", getpid(), getuid(),
        getgid(), prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    say_status(&r);
    say_mount(&r, "root", "/");
    say_mount(&r, "code", "/code");
    say_mount(&r, "tmp", "/tmp");
    say_mount(&r, "shm", "/dev/shm");
    say_interfaces(&r);
    say_limits(&r);
    say_cgroup(&r, "memory_max", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    say_cgroup(&r, "swap_max", "/sys/fs/cgroup/memory.swap.max", NULL);
    say_cgroup(&r, "memsw_max", NULL, "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
    say_cgroup(&r, "pids_max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max");
    if (slurp("/sys/fs/cgroup/cpu.max")) { /* both in one line */
        int quota = (int)strcspn(text, " \n");
        say(&r, "cpu_quota_us=%.*s\n", quota, text);
        say(&r, "cpu_period_us=%.*s\n", (int)strcspn(text + quota, "\n"), text + quota + (text[quota] == ' '));
    } else {
        say_cgroup(&r, "cpu_quota_us", NULL, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
        say_cgroup(&r, "cpu_period_us", NULL, "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    }
    return (size_t)(r.p - into);
}

uint64_t task_count(void)
{
    if (!slurp_cgroup("/sys/fs/cgroup/pids.current", "/sys/fs/cgroup/pids/pids.current"))
        return 0;
    return strtoull(text, NULL, 10);
}

uint64_t socket_count(uint64_t *ports)
{
    bool there = slurp("/proc/net/sockstat");
    const char *used = there ? value_of("sockets: used ") : NULL, *waiting = there ? strstr(text, " tw ") : NULL;
    *ports = waiting ? strtoull(waiting + 4, NULL, 10) : 1; /* unknown counts as not clean */
    return used ? strtoull(used, NULL, 10) : 0;
}

/* Without a cgroup: the peak of the largest process that has ended. */
static uint64_t largest_child_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_CHILDREN, &usage) ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

uint64_t memory_peak_bytes(void)
{
    if (!slurp_cgroup("/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"))
        return largest_child_bytes();
    return strtoull(text, NULL, 10);
}

uint32_t oom_kill_count(void)
{
    if (!slurp_cgroup("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"))
        return 0;
    const char *value = value_of("oom_kill ");
    return value ? (uint32_t)strtoul(value, NULL, 10) : 0;
}

uint32_t pids_refused_count(void)
{
    if (!slurp_cgroup("/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"))
        return 0;
    const char *value = value_of("max ");
    return value ? (uint32_t)strtoul(value, NULL, 10) : 0;
}
