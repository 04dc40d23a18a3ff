/* Question: what was each CPU executing, so many times a second?
 *
 * A perf event per CPU (software CPU clock) runs this in its timer interrupt. Both stacks go into the ring as they are:
 * a table of stacks in the kernel would drop those whose hashes meet, and be gone with a recorder that is killed. An
 * idle CPU costs nothing. The kernel walks frame pointers: of code built without them the innermost frame is right.
 */
#include "common.h"

#define STACK_FRAMES 127	/* of each side: the kernel's default limit (kernel.perf_event_max_stack) */

struct stack_scratch {
	struct stack_event event;
	u64 frames[3 * 128];
};
/* One per CPU; the timer interrupt does not interrupt itself. */
BPF_PERCPU_ARRAY(stack_scratches, struct stack_scratch, 1);

struct stack_space {
	u64 mm;
	u32 pid;
	u32 reserved_a;
};
/* Address spaces seen here, a new one after each exec; the kernel throws out the oldest. */
BPF_TABLE("lru_hash", struct stack_space, u8, stack_seen, 16384);
/* When each was first seen. The recorder reads its mappings soon after, and deletes it here. */
BPF_HASH(stack_new, struct stack_space, u64, 4096);

int stack_sample(struct bpf_perf_event_data *ctx)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 zero = 0, pid = pid_tgid >> 32;
	if (!(u32)pid_tgid || pid == KT_SELF_PID)
		return 0;
#if KT_FILTER_PIDS || KT_FILTER_CGROUPS
	if (!process_in_scope(pid))
		return 0;
#endif
	struct stack_scratch *scratch = stack_scratches.lookup(&zero);
	if (!scratch)
		return 0;
	struct stack_event *event = &scratch->event;
	event->ts_ns = bpf_ktime_get_ns();
	event->kind = EVENT_STACK;
	event->cpu = bpf_get_smp_processor_id();
	event->pid = pid;
	event->tid = pid_tgid;
	long size = bpf_get_stack(ctx, scratch->frames, STACK_FRAMES * 8, 0);
	u64 kernel = size > 0 ? size : 0;
	kernel &= 1023;
	size = bpf_get_stack(ctx, (void *)scratch->frames + kernel, STACK_FRAMES * 8, 256 /* BPF_F_USER_STACK */);
	u64 user = size > 0 ? size : 0;
	user &= 1023;
	event->kernel_frames = kernel / 8;
	event->user_frames = user / 8;
	if (user) {
		struct task_struct *task = (struct task_struct *)bpf_get_current_task();
		struct stack_space space = {};
		space.mm = (u64)READ(task, mm);
		space.pid = pid;
		if (!stack_seen.lookup(&space)) {
			u8 one = 1;
			stack_seen.update(&space, &one);
			if (stack_new.update(&space, &event->ts_ns))
				count(PROBE_STACK, COUNT_MAP_FULL, 1);
		}
	}
	u64 whole = sizeof(*event) + kernel + user;
	asm volatile("" : "+r"(whole));
	whole &= 4095;
	if (whole > sizeof(*scratch))
		whole = sizeof(*scratch);
	emit(PROBE_STACK, event, whole);
	return 0;
}
