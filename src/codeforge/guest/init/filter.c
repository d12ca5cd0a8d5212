/* The system calls by which a run could reach init, or the template that its next ones come of.
 *
 * They share a user id, and without capabilities nobody can be given another. init and the template
 * are not dumpable, which keeps their memory, descriptors and environment to themselves; what is left
 * are calls that take a process id: signals, limits, priorities. This filter refuses them, with EPERM,
 * where they name init or the template, and wherever a filter cannot see whom they name. It comes on
 * top of the engine's, and is in force before the interpreter is started; it can only be added to. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
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

enum { PROGRAM_MAX = 256 };

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

static void refuse(long call)
{
    answer_if_equal((uint32_t)call, REFUSE);
}

/* Refuses call if the lower half of that argument is one of the values: the kernel takes an int, too. */
static void refuse_for(long call, int argument, const uint32_t *values, int count)
{
    emit(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, (uint8_t)(2 * count + 2));
    load(offsetof(struct seccomp_data, args) + 8 * (size_t)argument); /* little-endian */
    for (int i = 0; i < count; i++)
        answer_if_equal(values[i], REFUSE);
    emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
}

/* Likewise for a call that says in its first argument which kind of thing it is about. */
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

bool filter_install(bool template)
{
    uint32_t self = (uint32_t)getpid(); /* exec keeps it */
    uint32_t processes[] = {1, self}, targets[] = {(uint32_t)-1, self, -self};
    uint32_t everyone[] = {0, (uint32_t)getuid()}, traceme[] = {PTRACE_TRACEME};
    int guarded = template ? 2 : 1;
    length = 0;

    load(offsetof(struct seccomp_data, arch));
    emit(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    emit(BPF_RET | BPF_K, ABSENT, 0, 0);
    load(offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    emit(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1); /* x32 */
    emit(BPF_RET | BPF_K, ABSENT, 0, 0);
#endif
    /* Of one's own, with 0, these are every program's; of init's they would change its children. */
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
    /* The parent, init or the template, would be told of its stops as if they were its end. */
    refuse_for(SYS_ptrace, 0, traceme, 1);
    /* Keys belong to the user id: they outlast the run. */
    refuse(SYS_add_key);
    refuse(SYS_request_key);
    refuse(SYS_keyctl);
    if (template) {
        uint32_t own[] = {FIOSETOWN, SIOCSPGRP};
        refuse_for(SYS_kill, 0, targets, 3);
        refuse_for(SYS_tkill, 0, targets + 1, 1);
        refuse_for(SYS_tgkill, 0, targets + 1, 1);
        refuse_for(SYS_rt_sigqueueinfo, 0, targets + 1, 1);
        refuse_for(SYS_rt_tgsigqueueinfo, 0, targets + 1, 1);
        refuse_for(SYS_ioctl, 1, own, 2);
        refuse(SYS_pidfd_send_signal);
        /* Whom a descriptor's signals go to: F_SETOWN says it by number, F_SETOWN_EX by address. */
        emit(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 10);
        load(offsetof(struct seccomp_data, args) + 8);
        answer_if_equal(F_SETOWN_EX, REFUSE);
        emit(BPF_JMP | BPF_JEQ | BPF_K, F_SETOWN, 1, 0);
        emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
        load(offsetof(struct seccomp_data, args) + 16);
        answer_if_equal(self, REFUSE);
        answer_if_equal(-self, REFUSE);
    }
    emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    struct sock_fprog loaded = {length, program};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &loaded) == 0;
}
