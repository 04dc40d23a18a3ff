/* Question: which TCP and UDP packets did the kernel drop or answer with a reset, where, and why?
 *
 * kfree_skb (reason since 5.17), tcp_send_reset (4.16+; reason since 6.10). Neither argument need be a socket, so
 * addresses come from the packet and the connection is found afterwards by them. A packet handed over in bulk
 * or at the end of its life without a fault (consume_skb) does not come here.
 */
#include "packets.h"

#define TCP_LISTEN 10

int packet_dropped(u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
#ifdef KT_DROP_REASON
	u32 reason = ctx[2];
	/* Not specified: mostly queues emptied when a socket is closed. */
	if (reason <= KT_DROP_REASON_MIN)
		return 0;
#else
	u32 reason = 0;
#endif
	struct packet_event event = {};
	if (!read_packet(skb, &event) || !packet_ports_in_scope(&event))
		return 0;
	event.ts_ns = bpf_ktime_get_ns();
	event.kind = EVENT_PACKET;
	event.what = PACKET_DROP;
	event.reason = reason;
	event.location = ctx[1];
	struct sock *sk = READ(skb, sk);
#ifdef KT_DROP_SOCKET
	if (!sk)
		sk = (struct sock *)ctx[3];
#endif
	event.netns_id = packet_netns(skb, sk);
#if KT_FILTER_NETNS
	if (!netns_in_scope(event.netns_id))
		return 0;
#endif
	/* Going out when this node's own socket sent it; otherwise it came in, and this end is its destination. */
	event.direction = DIRECTION_SEND;
	if (!READ(skb, sk)) {
		event.direction = DIRECTION_RECEIVE;
		swap_ends(&event);
	} else if (READ(sk, __sk_common.skc_num) != event.local_port) {
		event.direction = DIRECTION_RECEIVE;
		swap_ends(&event);
	}
	if (sk && READ(sk, __sk_common.skc_state) == TCP_LISTEN && event.protocol == 6 &&
	    READ(sk, sk_ack_backlog) > READ(sk, sk_max_ack_backlog))
		event.what = PACKET_LISTEN_OVERFLOW;
	emit(PROBE_DROP, &event, sizeof(event));
	return 0;
}

int reset_sent(u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct sk_buff *skb = (struct sk_buff *)ctx[1];
	struct packet_event event = {};
	event.ts_ns = bpf_ktime_get_ns();
	event.kind = EVENT_PACKET;
	event.what = PACKET_RESET_SENT;
#ifdef KT_RESET_REASON
	event.reason = ctx[2];
#endif
	if (skb && read_packet(skb, &event)) {
		swap_ends(&event);
		event.has_sequence = 0;
		event.size_bytes = 0;
	} else if (sk) {
		if (READ(sk, __sk_common.skc_family) == AF_INET6) {
			bpf_probe_read_kernel(event.local_ip, 16, &sk->__sk_common.skc_v6_rcv_saddr);
			bpf_probe_read_kernel(event.remote_ip, 16, &sk->__sk_common.skc_v6_daddr);
		} else {
			v4_address(event.local_ip, READ(sk, __sk_common.skc_rcv_saddr));
			v4_address(event.remote_ip, READ(sk, __sk_common.skc_daddr));
		}
		/* A socket on its way out has given its port back, but remembers it. */
		event.local_port = bpf_ntohs(READ((struct inet_sock *)sk, inet_sport));
		event.remote_port = bpf_ntohs(READ(sk, __sk_common.skc_dport));
	} else {
		return 0;
	}
	event.protocol = 6;
	event.direction = DIRECTION_SEND;
	if (!packet_ports_in_scope(&event))
		return 0;
	event.netns_id = skb || sk ? packet_netns(skb, sk) : 0;
#if KT_FILTER_NETNS
	if (!netns_in_scope(event.netns_id))
		return 0;
#endif
	emit(PROBE_DROP, &event, sizeof(event));
	return 0;
}
