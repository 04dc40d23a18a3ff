/* Question: which processes began, ran which program, ended how, and were killed for want of memory?
 *
 * sched_process_exec, sched_process_fork, sched_process_exit, oom:mark_victim. The last passes the task since
 * kernel 6.8, before that its pid (KT_OOM_TASK).
 */
#include "common.h"

#define ARGUMENT_BYTES 512	/* of the command line; longer ones are cut */

struct process_scratch {
	struct process_event event;
	u8 arguments[2 * ARGUMENT_BYTES];
};
/* One per CPU; exec runs in process context with preemption off. */
BPF_ARRAY(process_scratches, struct process_scratch, KT_CPUS);

static __always_inline void fill_process(struct process_event *event, struct task_struct *task, u8 what)
{
	event->ts_ns = bpf_ktime_get_ns();
	event->kind = EVENT_PROCESS;
	event->what = what;
	event->argument_bytes = 0;
	event->pid = GET(task, tgid);
	event->tid = GET(task, pid);
	event->status = 0;
	event->uid = 0;
	event->netns_id = 0;
	event->reserved_a = 0;
	struct task_struct *parent = GET(task, real_parent);
	event->parent_pid = GET(parent, tgid);
	/* Of the current task: at a fork the child is put into its parent's cgroup first. */
	event->cgroup_id = current_cgroup();
	event->start_ns = GET(task, start_time);
	struct nsproxy *proxy = GET(task, nsproxy);
	if (proxy) {
		struct net *net = READ(proxy, net_ns);
		event->netns_id = READ(net, ns.inum);
	}
	bpf_probe_read_kernel(event->command, sizeof(event->command), &task->comm);
}

static __always_inline int wanted(u32 pid)
{
#if KT_FILTER_PIDS || KT_FILTER_CGROUPS
	return process_in_scope(pid);
#else
	return 1;
#endif
}

int process_exec(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	u32 cpu = bpf_get_smp_processor_id();
	struct process_scratch *scratch = process_scratches.lookup(&cpu);
	if (!scratch || !wanted(GET(task, tgid)))
		return 0;
	fill_process(&scratch->event, task, PROCESS_EXEC);
	scratch->event.uid = bpf_get_current_uid_gid();
	u64 size = 0;
#if KT_ARGUMENTS
	struct mm_struct *mm = GET(task, mm);
	u64 begin = READ(mm, arg_start), end = READ(mm, arg_end);
	size = end - begin;
	if (size > ARGUMENT_BYTES)
		size = ARGUMENT_BYTES;
	asm volatile("" : "+r"(size));
	size &= 2 * ARGUMENT_BYTES - 1;
	if (bpf_probe_read_user(scratch->arguments, size, (void *)begin))
		size = 0;
#endif
	scratch->event.argument_bytes = size;
	size += sizeof(struct process_event);
	asm volatile("" : "+r"(size));
	size &= 2 * ARGUMENT_BYTES - 1;
	emit(PROBE_PROCESS, &scratch->event, size);
	return 0;
}

int process_fork(u64 *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx[1];
	struct process_event event = {};
	u32 parent = GET(((struct task_struct *)ctx[0]), tgid);
	if (!wanted(parent))
		return 0;
	fill_process(&event, child, PROCESS_FORK);
	if (event.pid != event.tid)
		event.what = PROCESS_THREAD;
#if KT_FILTER_PIDS
	else {
		u8 one = 1;
		if (scope_pids.lookup(&parent))
			scope_pids.update(&event.pid, &one);
	}
#endif
	event.uid = bpf_get_current_uid_gid();
	emit(PROBE_PROCESS, &event, sizeof(event));
	return 0;
}

int process_exit(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	u32 pid = GET(task, tgid);
	/* The process ends with its last thread, which need not be the first one. */
	struct signal_struct *signals = GET(task, signal);
	if (READ(signals, live.counter) != 0 || !wanted(pid))
		return 0;
	struct process_event event = {};
	fill_process(&event, task, PROCESS_EXIT);
	u32 group = READ(signals, group_exit_code);
	event.status = group ? group : GET(task, exit_code);
	event.uid = bpf_get_current_uid_gid();
	emit(PROBE_PROCESS, &event, sizeof(event));
#if KT_FILTER_PIDS
	scope_pids.delete(&pid);
#endif
	return 0;
}

int oom_kill(u64 *ctx)
{
	struct process_event event = {};
#if KT_OOM_TASK
	fill_process(&event, (struct task_struct *)ctx[0], PROCESS_OOM_KILL);
	event.cgroup_id = 0;	/* the current task's: not the victim's */
#else
	event.ts_ns = bpf_ktime_get_ns();
	event.kind = EVENT_PROCESS;
	event.what = PROCESS_OOM_KILL;
	event.pid = ctx[0];
	event.tid = ctx[0];
#endif
	emit(PROBE_PROCESS, &event, sizeof(event));
	return 0;
}
