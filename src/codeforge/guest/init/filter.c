/* The system calls that a run is refused. The filter works on top of the engine's, is in force before the
 * interpreter starts, and can only be added to.
 *
 * The kernel's surface: calls that no program here needs, and with which attacks on kernels begin. They fail
 * with an error, as on an older or smaller kernel, so that programs fall back. A filter that lists what is
 * allowed, and kills, breaks programs at random with every new library. Only a foreign ABI is deadly: its
 * numbers mean other calls.
 *
 * init, and the template that forks the next runs: they share the run's user id, because without
 * capabilities init cannot give a run another one. They are not dumpable, which protects their memory,
 * descriptors and environment. Calls that take a process id remain: signals, limits, priorities. They are
 * refused where they name init or the template, and wherever a filter cannot see whom they name. */
#include "filter.h"

#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
enum { ARCH = AUDIT_ARCH_X86_64 };
#elif defined(__aarch64__)
enum { ARCH = AUDIT_ARCH_AARCH64 };
#else
#error "which AUDIT_ARCH_ is this?"
#endif

#ifndef SIOCSPGRP
#define SIOCSPGRP 0x8902
#endif
#ifndef FIOSETOWN
#define FIOSETOWN 0x8901
#endif

/* Newer than some kernels' headers. The numbers are the same on all architectures. */
enum {
    CALL_IO_URING_SETUP = 425,
    CALL_IO_URING_ENTER,
    CALL_IO_URING_REGISTER,
    CALL_OPEN_TREE,
    CALL_MOVE_MOUNT,
    CALL_FSOPEN,
    CALL_FSCONFIG,
    CALL_FSMOUNT,
    CALL_FSPICK,
    CALL_CLONE3 = 435,
    CALL_PIDFD_GETFD = 438,
    CALL_PROCESS_MADVISE = 440,
    CALL_MOUNT_SETATTR = 442,
    CALL_QUOTACTL_FD = 443,
    CALL_MEMFD_SECRET = 447,
    CALL_PROCESS_MRELEASE = 448,
    CALL_SET_MEMPOLICY_HOME_NODE = 450,
    CALL_OPEN_TREE_ATTR = 467,
    LAST_KNOWN_CALL = 469, /* file_setattr; later ones have not been reviewed */
};

enum { CLONE_NEW_ANY = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
                       CLONE_NEWNET };

/* Libraries fall back when a kernel lacks these. clone3 hides its flags behind a pointer. */
static const long ABSENT_CALLS[] = {
    CALL_IO_URING_SETUP, CALL_IO_URING_ENTER, CALL_IO_URING_REGISTER,
    SYS_splice, SYS_tee, SYS_vmsplice, /* pipes that hold pages of files, as in Dirty Pipe */
    CALL_MEMFD_SECRET, CALL_CLONE3,
};

static const long REFUSED_CALLS[] = {
    /* other processes */
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, CALL_PIDFD_GETFD, CALL_PROCESS_MADVISE,
    CALL_PROCESS_MRELEASE,
    /* keys belong to the user id and would outlast the run */
    SYS_add_key, SYS_request_key, SYS_keyctl,
    /* namespaces and mounts */
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, CALL_FSOPEN, CALL_FSCONFIG,
    CALL_FSMOUNT, CALL_FSPICK, CALL_OPEN_TREE, CALL_OPEN_TREE_ATTR, CALL_MOVE_MOUNT, CALL_MOUNT_SETATTR,
    SYS_name_to_handle_at, SYS_open_by_handle_at,
    /* programs for the kernel, and its internals */
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_fanotify_init, SYS_init_module, SYS_finit_module,
    SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct,
    SYS_syslog, SYS_lookup_dcookie, SYS_vhangup, SYS_quotactl, CALL_QUOTACTL_FD, SYS_sethostname, SYS_setdomainname,
    SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex,
    /* where memory is placed: a matter for the machine's administrator */
    SYS_mbind, SYS_get_mempolicy, SYS_set_mempolicy, CALL_SET_MEMPOLICY_HOME_NODE, SYS_migrate_pages, SYS_move_pages,
    /* the whole machine's: all its disks, and names that a namespace does not limit */
    SYS_sync, SYS_syncfs, SYS_shmget, SYS_semget, SYS_msgget, SYS_mq_open,
#if defined(__x86_64__)
    SYS_modify_ldt, SYS_iopl, SYS_ioperm, SYS_uselib, SYS_ustat, SYS_sysfs, SYS_nfsservctl, SYS__sysctl,
    SYS_create_module, SYS_get_kernel_syms, SYS_query_module,
#endif
};

enum { PROGRAM_MAX = 512 };

static struct sock_filter program[PROGRAM_MAX];
static unsigned short length;

static void emit(uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
    if (length == PROGRAM_MAX)
        fail("the filter is too long");
    program[length++] = (struct sock_filter){code, jt, jf, k};
}

static void load(size_t offset)
{
    emit(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void answer_if_equal(uint32_t value, uint32_t answer)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    emit(BPF_RET | BPF_K, answer, 0, 0);
}

static const uint32_t REFUSE = SECCOMP_RET_ERRNO | EPERM, ABSENT = SECCOMP_RET_ERRNO | ENOSYS;

static void answer_calls(const long *calls, size_t count, uint32_t answer)
{
    for (size_t i = 0; i < count; i++)
        answer_if_equal((uint32_t)calls[i], answer);
}

static void refuse(long call)
{
    answer_if_equal((uint32_t)call, REFUSE);
}

/* Answers the call unless the lower half of that argument is one of the values; otherwise goes on. */
static void answer_unless(long call, int argument, const uint32_t *values, int count, uint32_t answer)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, (uint8_t)(count + 3));
    load(offsetof(struct seccomp_data, args) + 8 * (size_t)argument); /* little-endian */
    for (int i = 0; i < count; i++)
        emit(BPF_JMP | BPF_JEQ | BPF_K, values[i], (uint8_t)(count - i), 0);
    emit(BPF_RET | BPF_K, answer, 0, 0);
    load(offsetof(struct seccomp_data, nr));
}

/* Refuses the call if the lower half of that argument is one of the values: the kernel takes an int, too. */
static void refuse_for(long call, int argument, const uint32_t *values, int count)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, (uint8_t)(2 * count + 2));
    load(offsetof(struct seccomp_data, args) + 8 * (size_t)argument); /* little-endian */
    for (int i = 0; i < count; i++)
        answer_if_equal(values[i], REFUSE);
    emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
}

/* Likewise for a call whose first argument says which kind of id the second one is. */
static void refuse_kind(long call, uint32_t kind, const uint32_t *values, int count)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, (uint8_t)(2 * count + 4));
    load(offsetof(struct seccomp_data, args));
    emit(BPF_JMP | BPF_JEQ | BPF_K, kind, 0, (uint8_t)(2 * count + 1));
    load(offsetof(struct seccomp_data, args) + 8);
    for (int i = 0; i < count; i++)
        answer_if_equal(values[i], REFUSE);
    load(offsetof(struct seccomp_data, nr));
}

/* Takes away what no program needs of the kernel. */
static void narrow_kernel(bool template)
{
    /* The kernel would load modules for others. Protocol 0 is the default, and 1 also AF_UNIX's. */
    uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6};
    uint32_t protocols[] = {0, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6};
    uint32_t personalities[] = {0, 0xffffffff /* asks */};
    /* Typing into a terminal; a descriptor's owner. */
    uint32_t requests[] = {TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP};

    emit(BPF_JMP | BPF_JGT | BPF_K, LAST_KNOWN_CALL, 0, 1); /* as on a kernel that lacks it */
    emit(BPF_RET | BPF_K, ABSENT, 0, 0);
    answer_calls(ABSENT_CALLS, sizeof ABSENT_CALLS / sizeof *ABSENT_CALLS, ABSENT);
    answer_calls(REFUSED_CALLS, sizeof REFUSED_CALLS / sizeof *REFUSED_CALLS, REFUSE);
    answer_unless(SYS_socket, 0, families, 3, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
    answer_unless(SYS_socket, 2, protocols, 5, SECCOMP_RET_ERRNO | EPROTONOSUPPORT);
    answer_unless(SYS_socketpair, 0, families, 3, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
    answer_unless(SYS_personality, 0, personalities, 2, REFUSE);
    emit(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
    load(offsetof(struct seccomp_data, args)); /* flags come first on these architectures */
    emit(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEW_ANY, 0, 1);
    emit(BPF_RET | BPF_K, REFUSE, 0, 0);
    emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    refuse_for(SYS_ioctl, 1, requests, template ? 4 : 2);
}

/* Protects init, and this process if it becomes a template. exec keeps its process id. */
static void protect(bool template)
{
    uint32_t self = (uint32_t)getpid();
    uint32_t processes[] = {1, self}, signalled[] = {1, self, -self, (uint32_t)-1};
    uint32_t everyone[] = {0, (uint32_t)getuid()};
    int guarded = template ? 2 : 1;

    /* A program may call these on itself, with 0; on init they would change init's children. */
    refuse_for(SYS_prlimit64, 0, processes, guarded);
    refuse_for(SYS_sched_setaffinity, 0, processes, guarded);
    refuse_for(SYS_sched_setscheduler, 0, processes, guarded);
    refuse_for(SYS_sched_setparam, 0, processes, guarded);
    refuse_for(SYS_sched_setattr, 0, processes, guarded);
    refuse_kind(SYS_setpriority, PRIO_PROCESS, processes, guarded);
    refuse_kind(SYS_setpriority, PRIO_PGRP, processes, guarded);
    refuse_kind(SYS_ioprio_set, 1, processes, guarded); /* IOPRIO_WHO_PROCESS */
    refuse_kind(SYS_ioprio_set, 2, processes, guarded); /* IOPRIO_WHO_PGRP */
    refuse_kind(SYS_setpriority, PRIO_USER, everyone, 2);
    refuse_kind(SYS_ioprio_set, 3, everyone, 2); /* IOPRIO_WHO_USER */
    /* The kernel drops signals to init; here they are an error as well. -1 means every process. */
    refuse_for(SYS_kill, 0, signalled, template ? 4 : 1);
    refuse_for(SYS_tkill, 0, processes, guarded);
    refuse_for(SYS_tgkill, 0, processes, guarded);
    refuse_for(SYS_rt_sigqueueinfo, 0, processes, guarded);
    refuse_for(SYS_rt_tgsigqueueinfo, 0, processes, guarded);
    if (!template)
        return;
    refuse(SYS_pidfd_send_signal);
    /* The owner of a descriptor's signals: F_SETOWN takes a number, F_SETOWN_EX an address. */
    emit(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 10);
    load(offsetof(struct seccomp_data, args) + 8);
    answer_if_equal(F_SETOWN_EX, REFUSE);
    emit(BPF_JMP | BPF_JEQ | BPF_K, F_SETOWN, 1, 0);
    emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    load(offsetof(struct seccomp_data, args) + 16);
    answer_if_equal(self, REFUSE);
    answer_if_equal(-self, REFUSE);
}

bool filter_install(enum filter_for whom)
{
    length = 0;
    load(offsetof(struct seccomp_data, arch));
    emit(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    emit(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    load(offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    emit(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1); /* x32 */
    emit(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
#endif
    narrow_kernel(whom == RUN_TEMPLATE);
    if (whom != ENGINE)
        protect(whom == RUN_TEMPLATE);
    emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    struct sock_fprog loaded = {length, program};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &loaded) == 0;
}
