/* One run, from GO to CLEAN or DONE. */
#include "run.h"

#include "channel.h"
#include "clean.h"
#include "clock.h"
#include "command.h"
#include "fail.h"
#include "files.h"
#include "limits.h"
#include "posture.h"
#include "process.h"
#include "streams.h"
#include "worker.h"

#include <string.h>
#include <sys/wait.h>
#include <time.h>

/* How long init tries to kill a run that keeps forking. After that, the sandbox is not used again. */
static const uint64_t KILL_NS = MS_NS(500);

static struct {
    bool active, ended, keep;
    pid_t pid;  /* its first process; 0: a template forks it (worker.forked) */
    int status; /* of its first process, as wait() gives it */
    uint64_t started_ns;
    uint32_t oom_kills, pids_refused; /* before it */
    uint8_t token[TOKEN_BYTES];       /* tells the host that EXIT is init's */
} run;

static struct { /* CPU time at GO: starting and preloading do not count */
    uint64_t children_us, worker_us, reported_us;
} before;

bool run_active(void)
{
    return run.active;
}

static void set_ended(int status)
{
    if (!run.ended)
        run.status = status;
    run.ended = true;
}

bool run_ended(void)
{
    if (run.active && worker.forked.ended)
        set_ended(worker.forked.status);
    return run.active && run.ended;
}

void run_process_ended(pid_t pid, int status)
{
    if (run.active && (pid == run.pid || pid == worker.forked.pid || pid == worker.pid))
        set_ended(status);
}

/* --- GO ------------------------------------------------------------------------------------------- */

static uint64_t worker_cpu_us(void)
{
    clockid_t clock;
    struct timespec t;
    if (!worker.pid || worker.ended || clock_getcpuclockid(worker.pid, &clock) || clock_gettime(clock, &t))
        return 0;
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000;
}

/* Returns init's ends of its pipes. */
static struct pipes start_run(void)
{
    struct pipes ours;
    int theirs[3];
    if (worker.pid && worker.kind == ONE_RUN) {
        run.pid = worker.pid;
        return worker_become_run();
    }
    open_pipes(&ours, theirs);
    if (worker.pid)
        worker_fork_run(theirs);
    else {
        run.pid = process_start(&command, theirs, -1, false);
        close_fds(theirs, 3);
    }
    return ours;
}

void run_go(const struct frame *f)
{
    if (f->size != 1 + TOKEN_BYTES)
        fail("protocol: GO of the wrong size");
    uint8_t flags = f->payload[0];
    uint64_t started_ns = now_ns();
    processes_reap();
    if (worker.pid && (worker.ended || worker.control < 0 || flags & GO_FRESH))
        worker_drop();
    if (command.argc == 0)
        fail("protocol: nothing to run");
    before.children_us = children_cpu_us();
    before.worker_us = worker_cpu_us();
    before.reported_us = worker.reported_us;
    memset(&run, 0, sizeof run);
    streams_open(start_run());
    run.active = true;
    run.keep = flags & GO_KEEP;
    memcpy(run.token, f->payload + 1, TOKEN_BYTES);
    run.oom_kills = oom_kill_count();
    run.pids_refused = pids_refused_count();
    run.started_ns = started_ns;
    channel_expire_at(limits_expiry_ns(started_ns));
}

/* --- The end -------------------------------------------------------------------------------------- */

/* Since GO, of every process that is dead. */
static uint64_t run_cpu_us(void)
{
    uint64_t used = children_cpu_us() - before.children_us;
    if (worker.pid && !worker.ended)
        return used + worker.reported_us - before.reported_us;
    /* A dead worker counts among the children, with all that it ever did and reaped. */
    uint64_t not_the_run = before.worker_us + before.reported_us;
    return used > not_the_run ? used - not_the_run : 0;
}

/* Two passes over /proc could both miss a process that forks at the right moments. The kernel's count
 * cannot. */
static bool only_template_left(void)
{
    uint64_t tasks = task_count();
    return tasks ? tasks == 2 : processes_kill_others(worker.pid) == 0;
}

/* Kills everything but the template. false: it could not. */
static bool kill_run(void)
{
    if (worker.ended)
        return false;
    for (uint64_t until = now_ns() + KILL_NS; now_ns() < until;) {
        int found = processes_kill_others(worker.pid);
        processes_reap();
        if (found < 0 || worker.ended)
            return false;
        if (found == 0 && only_template_left())
            return true;
        nanosleep(&(struct timespec){0, 100 * 1000}, NULL);
    }
    return false;
}

static void report_exit(uint64_t ended_ns, uint32_t oom_kills, uint32_t pids_refused)
{
    channel_wait_room(64);
    uint8_t *start = outbox_payload(&outbox), *p = start;
    *p++ = WIFSIGNALED(run.status);
    *p++ = (uint8_t)(WIFSIGNALED(run.status) ? WTERMSIG(run.status) : WEXITSTATUS(run.status));
    p = put_u64(p, (ended_ns - run.started_ns) / 1000);
    p = put_u64(p, run_cpu_us());
    p = put_u64(p, memory_peak_bytes());
    p = put_u32(p, oom_kills);
    p = put_u32(p, pids_refused);
    memcpy(p, run.token, TOKEN_BYTES);
    p += TOKEN_BYTES;
    outbox_commit(&outbox, F_EXIT, (size_t)(p - start));
}

static void forget_run(void)
{
    streams_close();
    files_forget();
    memset(&run, 0, sizeof run);
    channel_expire_at(UINT64_MAX);
}

void run_end(bool keep)
{
    uint64_t ended_ns = now_ns();
    bool template = worker.pid && worker.kind == TEMPLATE, lost = template && worker.ended;
    keep = keep && run.keep && (!template || kill_run());
    if (!keep || !template)
        worker_drop();
    uint32_t oom_kills = oom_kill_count() - run.oom_kills;
    uint32_t pids_refused = pids_refused_count() - run.pids_refused;
    if (lost && !oom_kills)
        fail("the template ended");
    streams_drain();
    report_exit(ended_ns, oom_kills, pids_refused);
    files_collect(limits.files_bytes, limits.files);
    channel_wait_room(1);
    if (!keep || oom_kills || !clean(worker.pid != 0)) {
        outbox_put(&outbox, F_DONE, "", 0);
        finish(0);
    }
    forget_run();
    outbox_put(&outbox, F_CLEAN, "", 0);
}
