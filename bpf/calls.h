/* The system call a thread is in, from its saved user registers. */
#pragma once
#include "common.h"

#define CALL_OTHER 0
#define CALL_READ 1
#define CALL_WRITE 2
#define CALL_READV 3
#define CALL_WRITEV 4
#define CALL_SENDTO 5
#define CALL_RECVFROM 6
#define CALL_SENDMSG 7
#define CALL_RECVMSG 8
#define CALL_SENDMMSG 9
#define CALL_RECVMMSG 10
#define CALL_SENDFILE 11
#define CALL_SPLICE 12
#define CALL_IO_URING 13
#define CALL_KERNEL 14

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define NR_READ 63
#define NR_WRITE 64
#define NR_READV 65
#define NR_WRITEV 66
#define NR_SENDTO 206
#define NR_RECVFROM 207
#define NR_SENDMSG 211
#define NR_RECVMSG 212
#define NR_SENDMMSG 269
#define NR_RECVMMSG 243
#define NR_SENDFILE 71
#define NR_SPLICE 76
#define NR_PREADV2 286
#define NR_PWRITEV2 287
#else
#define NR_READ 0
#define NR_WRITE 1
#define NR_READV 19
#define NR_WRITEV 20
#define NR_SENDTO 44
#define NR_RECVFROM 45
#define NR_SENDMSG 46
#define NR_RECVMSG 47
#define NR_SENDMMSG 307
#define NR_RECVMMSG 299
#define NR_SENDFILE 40
#define NR_SPLICE 275
#define NR_PREADV2 327
#define NR_PWRITEV2 328
#endif
#define NR_IO_URING_ENTER 426
#define NR_NONE (~0ULL)

#define PF_IO_WORKER 0x10
#define PF_KTHREAD 0x200000

struct registers {
	u64 number;
	u64 arg[6];
};

static __always_inline struct task_struct *current_task(void)
{
#if KT_DIRECT
	return (struct task_struct *)bpf_get_current_task_btf();
#else
	return (struct task_struct *)bpf_get_current_task();
#endif
}

/* As bpf_get_current_pid_tgid answers; where the task is at hand, without another call. */
static __always_inline u64 thread_of(struct task_struct *task)
{
#if KT_DIRECT
	return (u64)(u32)task->tgid << 32 | (u32)task->pid;
#else
	return bpf_get_current_pid_tgid();
#endif
}

/* number is NR_NONE in a kernel thread and in a 32-bit process, whose arguments stand elsewhere. */
static __always_inline void read_registers(struct task_struct *task, struct registers *into)
{
	into->number = NR_NONE;
	u32 flags = GET(task, flags);
	if (flags & PF_IO_WORKER) {
		into->number = NR_IO_URING_ENTER;
		return;
	}
	if (flags & PF_KTHREAD)
		return;
#if KT_DIRECT
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
#else
	/* The registers lie at the top of the kernel stack. */
	struct pt_regs *regs = (struct pt_regs *)((u64)GET(task, stack) + KT_STACK_BYTES - KT_STACK_PADDING) - 1;
#endif
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	if (GET(regs, pstate) & 0x10)
		return;
	into->number = (u32)GET(regs, syscallno);
	into->arg[0] = GET(regs, orig_x0);
	into->arg[1] = GET(regs, regs[1]);
	into->arg[2] = GET(regs, regs[2]);
	into->arg[3] = GET(regs, regs[3]);
	into->arg[4] = GET(regs, regs[4]);
	into->arg[5] = GET(regs, regs[5]);
#else
	if ((GET(regs, cs) & 0xffff) != 0x33)
		return;
	into->number = GET(regs, orig_ax);
	into->arg[0] = GET(regs, di);
	into->arg[1] = GET(regs, si);
	into->arg[2] = GET(regs, dx);
	into->arg[3] = GET(regs, r10);
	into->arg[4] = GET(regs, r8);
	into->arg[5] = GET(regs, r9);
#endif
}
