/* Question: which TCP connections began, changed state, ended, and in what condition?
 *
 * inet_sock_set_state (kernel 4.16+) runs on each change of state; tcp_destroy_sock when the socket is freed.
 */
#include "sockets.h"

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10

int state_change(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	u8 old_state = ctx[1], new_state = ctx[2];
	if (protocol_of(sk) != IPPROTO_TCP || old_state == TCP_LISTEN || new_state == TCP_LISTEN)
		return 0;
	u64 now = bpf_ktime_get_ns();
	u8 origin = new_state == TCP_SYN_SENT ? ORIGIN_CONNECT : old_state == TCP_SYN_RECV && new_state == TCP_ESTABLISHED ? ORIGIN_ACCEPT : ORIGIN_FOUND;
	struct socket_state *state = state_of(sk, 2, origin);
	if (!state) {
		count(PROBE_CONNECTION, COUNT_MAP_FULL, 1);
		return 0;
	}
	u64 thread = 0;
	/* A socket may connect again after a failure; without socket storage another one may have its address. */
	if (origin != ORIGIN_FOUND && (state->state_ns || state->told)) {
		__builtin_memset(state, 0, sizeof(*state));
		state->id = new_socket_id(2);
		state->netns_id = netns_of(sk);
		state->origin = origin;
		state->run_direction = 2;
	}
	if (new_state == TCP_SYN_SENT) {
		/* connect(2), in the process's own context. */
		thread = bpf_get_current_pid_tgid();
		state->pid = thread >> 32;
		state->start_ns = now;
		state->cgroup_id = current_cgroup();
	} else if (origin == ORIGIN_ACCEPT && new_state == TCP_ESTABLISHED) {
		state->start_ns = now;
	}
	u64 since = state->state_ns;
	state->state_ns = now;
	u32 pid = state->pid;
	if (pid == KT_SELF_PID || !in_scope(sk, state, thread >> 32))
		return 0;
	/* The source port is chosen after SYN_SENT is entered: tell with the next change. */
	if (!is_told(state) && new_state != TCP_SYN_SENT) {
		tell(sk, state, now, (u64)pid << 32, state->cgroup_id);
	}
	struct state_event event = {};
	event.ts_ns = now;
	event.kind = EVENT_STATE;
	event.old_state = old_state;
	event.new_state = new_state;
	event.error = GET(sk, sk_err);
	event.socket_id = state->id;
	event.duration_ns = since ? now - since : 0;
	event.pid = pid;
	emit(PROBE_CONNECTION, &event, sizeof(event));
	if (new_state == TCP_CLOSE && old_state != TCP_SYN_SENT) {
		struct tcp_sock *tp = TCP(sk);
		if (tp)
			sample(tp, sk, state, now, SAMPLE_CLOSE);
	}
	return 0;
}

#if !KT_DIRECT
int tcp_destroy(u64 *ctx)
{
	u64 key = ctx[0];
	sockets.delete(&key);
	return 0;
}
#endif
