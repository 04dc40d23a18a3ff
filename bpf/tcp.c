/* Question: which segments were sent again, and who reset which connection?
 *
 * tcp_retransmit_skb (4.16+), tcp_retransmit_synack (4.16+), tcp_send_reset (4.16+), tcp_receive_reset (4.16+).
 */
#include "sockets.h"

#define TCP_CA_RECOVERY 3
#define TCP_CA_LOSS 4
#define ICSK_TIME_LOSS_PROBE 5
#define SYN_SENT_STATE 2

struct tcp_control_block {	/* the start of struct tcp_skb_cb, in sk_buff.cb since 2.6 */
	u32 seq;
	u32 end_seq;
};

static __always_inline void fill_packet(struct packet_event *event, struct sock *sk, struct socket_state *state)
{
	event->ts_ns = bpf_ktime_get_ns();
	event->kind = EVENT_PACKET;
	event->protocol = IPPROTO_TCP;
	event->socket_id = state ? state->id : 0;
	event->netns_id = netns_of(sk);
	event->pid = state ? state->pid : 0;
	addresses_of(sk, event->local_ip, event->remote_ip, &event->local_port, &event->remote_port);
}

int retransmit(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct socket_state *state = state_of(sk, 3, ORIGIN_FOUND);
	if (!state || !in_scope(sk, state, 0) || state->pid == KT_SELF_PID)
		return 0;
	struct packet_event event = {};
	fill_packet(&event, sk, state);
	if (!is_told(state) && GET(sk, __sk_common.skc_state) != SYN_SENT_STATE)
		tell(sk, state, event.ts_ns, 0, 0);
	event.what = PACKET_RETRANSMIT;
	event.direction = DIRECTION_SEND;
	struct tcp_control_block block = {};
	bpf_probe_read_kernel(&block, sizeof(block), ((struct sk_buff *)ctx[1])->cb);
	event.sequence = block.seq;
	event.has_sequence = 1;
	event.size_bytes = block.end_seq - block.seq;
	struct tcp_sock *tp = TCP(sk);
	if (!tp)
		return 0;
	u8 congestion = 0, pending = GET(tp, inet_conn.icsk_pending);
	/* icsk_ca_state is a bit field at the byte before icsk_retransmits. */
	bpf_probe_read_kernel(&congestion, 1, &tp->inet_conn.icsk_retransmits - 1);
	congestion &= 0x1f;
	if (GET(sk, __sk_common.skc_state) == SYN_SENT_STATE)
		event.reason = CAUSE_SYN;
	else if (pending == ICSK_TIME_LOSS_PROBE)
		event.reason = CAUSE_TAIL_LOSS;
	else if (congestion == TCP_CA_LOSS)
		event.reason = CAUSE_TIMEOUT;
	else if (congestion == TCP_CA_RECOVERY)
		event.reason = CAUSE_FAST;
	emit(PROBE_TCP, &event, sizeof(event));
	if (event.ts_ns - state->sample_ns > SAMPLE_INTERVAL_NS && event.reason != CAUSE_SYN)
		sample(tp, sk, state, event.ts_ns, SAMPLE_PERIODIC);
	return 0;
}

/* The listener's socket, and the request with the addresses of the connection to be. */
int retransmit_synack(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct inet_request_sock *request = (struct inet_request_sock *)ctx[1];
	struct packet_event event = {};
	event.ts_ns = bpf_ktime_get_ns();
	event.kind = EVENT_PACKET;
	event.what = PACKET_SYNACK_RETRANSMIT;
	event.protocol = IPPROTO_TCP;
	event.direction = DIRECTION_SEND;
	event.netns_id = netns_of(sk);
	if (!port_in_scope(sk))
		return 0;
	if (READ(request, req.__req_common.skc_family) == AF_INET6) {
		bpf_probe_read_kernel(event.local_ip, 16, &request->req.__req_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(event.remote_ip, 16, &request->req.__req_common.skc_v6_daddr);
	} else {
		v4_address(event.local_ip, READ(request, req.__req_common.skc_rcv_saddr));
		v4_address(event.remote_ip, READ(request, req.__req_common.skc_daddr));
	}
	event.local_port = READ(request, req.__req_common.skc_num);
	event.remote_port = bpf_ntohs(READ(request, req.__req_common.skc_dport));
	emit(PROBE_TCP, &event, sizeof(event));
	return 0;
}

int receive_reset(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct socket_state *state = find_state(sk);
	if (state && (!in_scope(sk, state, 0) || state->pid == KT_SELF_PID))
		return 0;
	if (!state && !port_in_scope(sk))
		return 0;
	struct packet_event event = {};
	fill_packet(&event, sk, state);
	event.what = PACKET_RESET_RECEIVED;
	event.direction = DIRECTION_RECEIVE;
	emit(PROBE_TCP, &event, sizeof(event));
	return 0;
}
