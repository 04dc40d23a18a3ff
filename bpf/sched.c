/* Question: when did a thread run, wait for a CPU, and sleep, in which system call, and who woke it?
 *
 * sched_switch and sched_waking. One event per stay on a CPU, when it ends: it tells of the time off the CPU before
 * it too, so that the events of a thread follow each other without a gap. Threads still off the CPU when the
 * recording ends are read from `sched_threads`.
 *
 * Now and then a switch passes on which the kernel calls no program (seen with two independent ones on 6.18: not one
 * in a thousand). The thread's own counts tell: `nvcsw` and `nivcsw` grow by one with each switch away from it. Where
 * one is found missing, the stays between two switches seen become one, and the kernel's account says how long the
 * thread ran (`se.sum_exec_runtime`, kernel/sched/fair.c) and waited for a CPU (`sched_info.run_delay`,
 * kernel/sched/stats.h) in that time; the rest counts as what it was doing before.
 *
 * KT_SCHED_IO: only threads of processes that used a socket in this recording; else all in scope.
 * sched_switch(preempt, prev, next[, prev_state: KT_SWITCH_STATE, kernel 5.18]).
 */
#include "sockets.h"
#include "calls.h"

struct sched_thread {
	u64 off_ns;		/* when it last left the CPU */
	u64 woke_ns;		/* when it was woken since, 0: not */
	u64 in_ns;		/* when it last came onto a CPU, 0: not seen */
	u64 ran_ns;		/* its time on a CPU, by the kernel's account, when it last left one */
	u64 delay_ns;		/* its time waiting for a CPU, by the same */
	u64 switches;		/* how often it left a CPU */
	u64 sleeps;		/* how often by its own wish */
	u32 pid;
	u32 waker_tid;
	u32 call;		/* system call in which it left the CPU */
	u32 state;		/* SLICE_* */
};
/* By tid. Deleted when the thread ends. */
BPF_HASH(sched_threads, u32, struct sched_thread, 65536);

#define TASK_STATE_INTERRUPTIBLE 0x1
#define TASK_STATE_UNINTERRUPTIBLE 0x2
#define TASK_STATE_STOPPED 0xc
#define TASK_STATE_DEAD 0xf0	/* EXIT_DEAD, EXIT_ZOMBIE, TASK_PARKED, TASK_DEAD: threads that end or are parked */
#define TASK_STATE_IDLE 0x402

static __always_inline int sched_wanted(u32 pid)
{
#if KT_SCHED_IO
	return sched_pids.lookup(&pid) != 0;
#elif KT_FILTER_PIDS || KT_FILTER_CGROUPS
	return process_in_scope(pid);
#else
	return pid != KT_SELF_PID;
#endif
}

static __always_inline u32 call_number(struct task_struct *task)
{
	if (GET(task, flags) & (PF_KTHREAD | PF_IO_WORKER))
		return SLICE_NO_CALL;
#if KT_DIRECT
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
#else
	struct pt_regs *regs = (struct pt_regs *)((u64)GET(task, stack) + KT_STACK_BYTES - KT_STACK_PADDING) - 1;
#endif
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	return GET(regs, syscallno);
#else
	return (GET(regs, cs) & 0xffff) == 0x33 ? GET(regs, orig_ax) : SLICE_NO_CALL;
#endif
}

int sched_switch(u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	u64 now = bpf_ktime_get_ns();
	u32 tid = GET(prev, pid), pid = GET(prev, tgid);
	if (tid && sched_wanted(pid)) {
#if KT_SWITCH_STATE
		u32 state = ctx[3];
#elif defined(KT_TASK_STATE_NEW)
		u32 state = GET(prev, __state);
#else
		u32 state = GET(prev, state);
#endif
		struct sched_thread *thread = sched_threads.lookup(&tid);
		u64 ran = GET(prev, se.sum_exec_runtime);
		u64 sleeps = GET(prev, nvcsw), switches = sleeps + GET(prev, nivcsw);
#ifdef KT_RUN_DELAY
		u64 delay = GET(prev, sched_info.run_delay);
#else
		u64 delay = 0;
#endif
		/* Preempted: the state it was about to enter does not count. */
		int gave_up = !(u8)ctx[0] && (state & 0xfff);
		if (thread) {
			struct slice_event event = {};
			u64 in = thread->in_ns, waited = delay - thread->delay_ns;
			int missed = switches - thread->switches > 1;
			event.ts_ns = now;
			event.kind = EVENT_SLICE;
			event.state = thread->state;
			event.cpu = bpf_get_smp_processor_id();
			event.pid = pid;
			event.tid = tid;
			event.call = thread->call;
			event.off_ns = thread->off_ns;
			event.woke_ns = thread->woke_ns;
			event.waker_tid = thread->waker_tid;
			/* While an interrupt or a hypervisor has its CPU a thread waits for one, though it was not switched. */
			u64 by_account = now - (ran - thread->ran_ns);
			if (missed || in < by_account)
				in = by_account;
			if (in < thread->off_ns || in > now)
				in = thread->off_ns;
			event.in_ns = in;
#ifdef KT_RUN_DELAY
			if (missed)
				event.woke_ns = waited < in - thread->off_ns ? in - waited : thread->off_ns;
#endif
			if (missed && thread->state == SLICE_RUNNABLE && sleeps - thread->sleeps > gave_up)
				event.state = SLICE_SLEEPING;
			emit(PROBE_SCHEDULER, &event, sizeof(event));
		}
		if (state & TASK_STATE_DEAD) {
			sched_threads.delete(&tid);
		} else {
			struct sched_thread fresh = {};
			if (!thread) {
				if (sched_threads.update(&tid, &fresh))
					count(PROBE_SCHEDULER, COUNT_MAP_FULL, 1);
				thread = sched_threads.lookup(&tid);
			}
			if (thread) {
				thread->off_ns = now;
				thread->woke_ns = 0;
				thread->in_ns = 0;
				thread->ran_ns = ran;
				thread->delay_ns = delay;
				thread->switches = switches;
				thread->sleeps = sleeps;
				thread->pid = pid;
				thread->waker_tid = 0;
				thread->call = call_number(prev);
				if (!gave_up)
					thread->state = SLICE_RUNNABLE;
				else if ((state & TASK_STATE_IDLE) == TASK_STATE_IDLE)
					thread->state = SLICE_IDLE;
				else if (state & TASK_STATE_INTERRUPTIBLE)
					thread->state = SLICE_SLEEPING;
				else if (state & TASK_STATE_UNINTERRUPTIBLE)
					thread->state = SLICE_BLOCKED;
				else
					thread->state = SLICE_STOPPED;
			}
		}
	}
	tid = GET(next, pid);
	struct sched_thread *thread = tid ? sched_threads.lookup(&tid) : 0;
	if (thread)
		thread->in_ns = now;
	return 0;
}

/* The waker is the thread on whose CPU the waking ran; an interrupt borrows whichever thread is there. */
int sched_waking(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	u32 tid = GET(task, pid);
	struct sched_thread *thread = sched_threads.lookup(&tid);
	if (thread && !thread->in_ns && !thread->woke_ns && thread->state != SLICE_RUNNABLE) {
		thread->woke_ns = bpf_ktime_get_ns();
		thread->waker_tid = bpf_get_current_pid_tgid();
	}
	return 0;
}
