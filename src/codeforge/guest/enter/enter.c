/* enter: the last step into a sandbox that bubblewrap makes. The same process then becomes init.
 *
 *   enter [--tmpfs PATH OPTIONS]... [--mask PATH]... [--readonly PATH]... [--limit NAME VALUE]...
 *         [--oom-score-adj N] -- PROGRAM
 *
 * bubblewrap has made the namespaces and mounted everything that is read-only. The rest has no option in
 * bubblewrap and is done here: a cgroup namespace of the cgroup that the host has moved this process into,
 * file systems in memory that refuse execution and hold a limited number of files, and the limits of the
 * process. Then this process gives up every capability, loads init's filter of system calls, and becomes init.
 *
 * If any step fails, nothing runs: the reason goes to stderr, and the sandbox ends. */
#include "../init/fail.h"
#include "../init/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

_Noreturn void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("codeforge enter: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(EXIT_FAILED);
}

static void must(bool done, const char *what)
{
    if (!done)
        fail("%s: %s", what, strerror(errno));
}

static const unsigned long TIGHT = MS_NOSUID | MS_NODEV | MS_NOEXEC;

static void mount_tmpfs(const char *path, const char *options)
{
    must(mount("tmpfs", path, "tmpfs", TIGHT, options) == 0, path);
}

/* Kernels differ: a path that does not exist needs no mask. */
static bool exists(const char *path, struct stat *found)
{
    if (stat(path, found) == 0)
        return true;
    must(errno == ENOENT, path);
    return false;
}

static void mask(const char *path)
{
    struct stat found;
    if (!exists(path, &found))
        return;
    if (S_ISDIR(found.st_mode))
        must(mount("tmpfs", path, "tmpfs", TIGHT | MS_RDONLY, "size=4096,nr_inodes=1") == 0, path);
    else
        must(mount("/dev/null", path, NULL, MS_BIND, NULL) == 0, path);
}

static void make_readonly(const char *path)
{
    struct stat found;
    if (!exists(path, &found))
        return;
    must(mount(path, path, NULL, MS_BIND | MS_REC, NULL) == 0, path);
    must(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | TIGHT, NULL) == 0, path);
}

static void limit(const char *name, const char *value)
{
    static const struct {
        const char *name;
        int resource;
    } known[] = {
        {"core", RLIMIT_CORE},         {"nofile", RLIMIT_NOFILE},         {"fsize", RLIMIT_FSIZE},
        {"msgqueue", RLIMIT_MSGQUEUE}, {"sigpending", RLIMIT_SIGPENDING}, {"memlock", RLIMIT_MEMLOCK},
    };
    struct rlimit l;
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(name, known[i].name))
        i++;
    if (i == sizeof known / sizeof *known)
        fail("unknown limit %s", name);
    must(getrlimit((unsigned)known[i].resource, &l) == 0, name);
    rlim_t most = strtoull(value, NULL, 10);
    if (most < l.rlim_max)
        l.rlim_max = most; /* the caller may be allowed less */
    l.rlim_cur = l.rlim_max;
    must(setrlimit((unsigned)known[i].resource, &l) == 0, name);
}

static void set_oom_score_adj(const char *value)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && write(fd, value, strlen(value)) > 0, "oom_score_adj");
    close(fd);
}

static void give_up_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {0};
    for (int c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
        must(prctl(PR_CAPBSET_DROP, c, 0, 0, 0) == 0, "the bounding set");
    must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0, "ambient capabilities");
    must(syscall(SYS_capset, &header, none) == 0, "capabilities");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
}

/* Returns the words of the option, and moves on, if it is this one. */
static char **option(char ***at, const char *name, int words)
{
    char **found = *at;
    if (strcmp(found[0], name))
        return NULL;
    for (int i = 1; i <= words; i++)
        if (!found[i])
            fail("%s lacks a word", name);
    *at += 1 + words;
    return found + 1;
}

int main(int argc, char **argv)
{
    (void)argc;
    /* bubblewrap may have made the mounts in a user namespace above this one. In a copy, this process may
     * mount on top of them. */
    must(unshare(CLONE_NEWNS | CLONE_NEWCGROUP) == 0, "namespaces");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mounts of its own");
    char **at = argv + 1, **words;
    while (*at && strcmp(*at, "--")) {
        if ((words = option(&at, "--tmpfs", 2)))
            mount_tmpfs(words[0], words[1]);
        else if ((words = option(&at, "--mask", 1)))
            mask(words[0]);
        else if ((words = option(&at, "--readonly", 1)))
            make_readonly(words[0]);
        else if ((words = option(&at, "--limit", 2)))
            limit(words[0], words[1]);
        else if ((words = option(&at, "--oom-score-adj", 1)))
            set_oom_score_adj(words[0]);
        else
            fail("unknown option %s", *at);
    }
    if (!*at || !at[1])
        fail("nothing to run");
    must(chdir("/") == 0, "/");
    unsetenv("PWD"); /* bubblewrap sets it; the host alone decides the program's environment */
    must(syscall(SYS_close_range, 3, ~0U, 0) == 0, "descriptors");
    give_up_capabilities();
    must(filter_install(ENGINE), "the filter");
    execv(at[1], at + 1);
    fail("%s: %s", at[1], strerror(errno));
}
