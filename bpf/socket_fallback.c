/* The question of socket_data.c on kernels before 6.3, which lack its tracepoints: the inet_* functions below
 * the socket calls, at their end. fexit reads arguments and result together; kprobes need a map in between.
 *
 * inet_sendmsg(sock, msg, size), inet_recvmsg(sock, msg, size, flags), and inet6_*: 5.2+ by these names. sendfile
 * comes by inet_sendpage up to 6.4. splice from a socket passes none of them: it is seen as a gap in the positions.
 */
#include "sockets.h"

int fexit_send(u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];
	return moved(GET(socket, sk), (int)ctx[3], 0, DIRECTION_SEND);
}

/* inet_sendpage(sock, page, offset, size, flags) */
int fexit_sendpage(u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];
	return moved(GET(socket, sk), (int)ctx[5], 0, DIRECTION_SEND);
}

int fexit_receive(u64 *ctx)
{
	struct socket *socket = (struct socket *)ctx[0];
	return moved(GET(socket, sk), (int)ctx[4], (int)ctx[3], DIRECTION_RECEIVE);
}

struct running_call {
	u64 socket;
	u64 flags;
};
/* The call a thread is in. Inserted at the entry, deleted at the return; a thread makes one at a time. */
BPF_TABLE("lru_hash", u64, struct running_call, running_calls, 65536);

static __always_inline int entered(u64 socket, u64 flags)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct running_call call = {.socket = socket, .flags = flags};
	running_calls.update(&thread, &call);
	return 0;
}

static __always_inline int returned(int result, u8 direction)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct running_call *call = running_calls.lookup(&thread);
	if (!call)
		return 0;
	struct socket *socket = (struct socket *)call->socket;
	u64 flags = call->flags;
	running_calls.delete(&thread);
	return moved(GET(socket, sk), result, flags, direction);
}

#if !KT_DIRECT
int kprobe_send(struct pt_regs *ctx)
{
	return entered(PT_REGS_PARM1(ctx), 0);
}

int kprobe_receive(struct pt_regs *ctx)
{
	return entered(PT_REGS_PARM1(ctx), PT_REGS_PARM4(ctx));
}

int kretprobe_send(struct pt_regs *ctx)
{
	return returned(PT_REGS_RC(ctx), DIRECTION_SEND);
}

int kretprobe_receive(struct pt_regs *ctx)
{
	return returned(PT_REGS_RC(ctx), DIRECTION_RECEIVE);
}
#endif
