/* Per-socket state and what is told about a socket when it gets its id. */
#pragma once
#include "common.h"

struct socket_state {
	u64 id;
	u64 next[2];		/* stream position after the last byte seen, by direction */
	u64 sample_ns;		/* last tcp_sample */
	u64 state_ns;		/* when the present TCP state was entered, 0: not known */
	u64 start_ns;
	u64 cgroup_id;		/* of the process that connected */
	u32 run_bytes;		/* payload captured since the direction turned */
	u32 scope_pid;		/* process for which `scope` was decided */
	u32 pid;		/* first process seen using it */
	u32 netns_id;
	u16 local_port;
	u8 origin;
	u8 told;		/* EVENT_CONNECTION has been sent */
	u8 scope;		/* the process filter's last answer */
	u8 run_direction;
	u8 known[2];		/* next[] holds a position */
#if KT_CONTROL
	u32 generation;		/* at which it was told */
	u32 thinned;		/* events left out since the last one told */
#endif
};

#if KT_DIRECT
/* Made by the first program that sees the socket, freed by the kernel together with the socket. */
BPF_SK_STORAGE(sockets, struct socket_state);
#else
/* By address of the socket. Made by the first program that sees it, deleted by tcp_destroy (TCP); a UDP
 * socket at the same address is told apart by its local port, the rest leaves by age. */
BPF_TABLE("lru_hash", u64, struct socket_state, sockets, 131072);
#endif

/* One count per program and CPU, so that no interrupt can hand out an id twice. */
BPF_PERCPU_ARRAY(socket_ids, u64, 16);

static __always_inline u64 new_socket_id(u32 program)
{
	u64 *value = socket_ids.lookup(&program);
	if (!value)
		return 0;
	*value += 1;
	return *value << 16 | (bpf_get_smp_processor_id() & 0xfff) << 4 | program;
}

static __always_inline u16 protocol_of(struct sock *sk)
{
#ifdef KUBETAPE_SK_BITFIELDS
	/* Before kernel 5.6: sk_padding:1 kern_sock:1 no_check_tx:1 no_check_rx:1 userlocks:4 protocol:8 type:16 */
	u32 bits = 0;
	bpf_probe_read_kernel(&bits, sizeof(bits), &sk->__sk_flags_offset);
	return bits >> 8 & 0xff;
#else
	return GET(sk, sk_protocol);
#endif
}

static __always_inline u32 netns_of(struct sock *sk)
{
	struct net *net = GET(sk, __sk_common.skc_net.net);
	return GET(net, ns.inum);
}

static __always_inline struct socket_state *find_state(struct sock *sk)
{
#if KT_DIRECT
	return sockets.sk_storage_get(sk, 0, 0);
#else
	u64 key = (u64)sk;
	return sockets.lookup(&key);
#endif
}

static __always_inline struct socket_state *state_of(struct sock *sk, u32 program, u8 origin)
{
	struct socket_state *state;
#if KT_DIRECT
	state = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
#else
	u64 key = (u64)sk;
	state = sockets.lookup(&key);
	if (!state) {
		struct socket_state fresh = {};
		sockets.update(&key, &fresh);
		state = sockets.lookup(&key);
	}
#endif
	if (!state)
		return 0;
#if !KT_DIRECT
	if (state->id && state->local_port && state->local_port != GET(sk, __sk_common.skc_num) &&
	    protocol_of(sk) == IPPROTO_UDP)
		__builtin_memset(state, 0, sizeof(*state));
#endif
	if (!state->id) {
		state->id = new_socket_id(program);
		state->origin = origin;
		state->netns_id = netns_of(sk);
		state->run_direction = 2;
	}
	return state;
}

/* A TCP socket entering CLOSE has just given its port back, but remembers it. */
static __always_inline u16 local_port_of(struct sock *sk)
{
	u16 port = GET(sk, __sk_common.skc_num);
	return port ? port : bpf_ntohs(READ((struct inet_sock *)sk, inet_sport));
}

static __always_inline int port_in_scope(struct sock *sk)
{
#ifdef KT_PORT_FILTER
	u16 local = local_port_of(sk);
	u16 remote = bpf_ntohs(GET(sk, __sk_common.skc_dport));
	/* An unconnected datagram socket has a peer per datagram: socket_data.c looks at it. */
	if (!remote && protocol_of(sk) == IPPROTO_UDP)
		return 1;
	return KT_PORT_FILTER(local) || KT_PORT_FILTER(remote);
#else
	return 1;
#endif
}

static __always_inline void addresses_of(struct sock *sk, u8 *local, u8 *remote, u16 *local_port, u16 *remote_port)
{
	if (GET(sk, __sk_common.skc_family) == AF_INET6) {
#if KT_DIRECT
		*(u64 *)local = *(u64 *)&sk->__sk_common.skc_v6_rcv_saddr;
		*(u64 *)(local + 8) = *((u64 *)&sk->__sk_common.skc_v6_rcv_saddr + 1);
		*(u64 *)remote = *(u64 *)&sk->__sk_common.skc_v6_daddr;
		*(u64 *)(remote + 8) = *((u64 *)&sk->__sk_common.skc_v6_daddr + 1);
#else
		bpf_probe_read_kernel(local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(remote, 16, &sk->__sk_common.skc_v6_daddr);
#endif
	} else {
		v4_address(local, GET(sk, __sk_common.skc_rcv_saddr));
		v4_address(remote, GET(sk, __sk_common.skc_daddr));
	}
	*local_port = local_port_of(sk);
	*remote_port = bpf_ntohs(GET(sk, __sk_common.skc_dport));
}

#if KT_SCHED_IO
/* Processes that used a socket: sched.c tells of their threads. */
BPF_TABLE("lru_hash", u32, u8, sched_pids, 16384);
#endif
static __always_inline void used_by(u32 pid)
{
#if KT_SCHED_IO
	u8 one = 1;
	if (pid && pid != KT_SELF_PID)
		sched_pids.update(&pid, &one);
#endif
}

/* A recording that gives up its oldest part wants to be told of each socket again in the part that follows. */
static __always_inline int is_told(struct socket_state *state)
{
#if KT_CONTROL
	return state->told && state->generation == controlled(CONTROL_GENERATION);
#else
	return state->told;
#endif
}

/* Tell the recorder of a socket, once, when its addresses are known. */
static __always_inline void tell(struct sock *sk, struct socket_state *state, u64 now, u64 pid_tgid, u64 cgroup)
{
	struct connection_event event = {};
	state->told = 1;
#if KT_CONTROL
	state->generation = controlled(CONTROL_GENERATION);
#endif
	event.ts_ns = now;
	event.kind = EVENT_CONNECTION;
	event.origin = state->origin;
	event.family = GET(sk, __sk_common.skc_family);
	event.state = GET(sk, __sk_common.skc_state);
	event.netns_id = state->netns_id;
	event.socket_id = state->id;
	event.start_ns = state->start_ns;
	event.cgroup_id = cgroup;
	addresses_of(sk, event.local_ip, event.remote_ip, &event.local_port, &event.remote_port);
	state->local_port = event.local_port;
	event.protocol = protocol_of(sk);
	event.pid = pid_tgid >> 32;
	event.tid = pid_tgid;
	used_by(event.pid);
	emit(PROBE_CONNECTION, &event, sizeof(event));
}

/* Does the recording want this socket's events? pid 0: in interrupt context, the process filter's last answer counts. */
static __always_inline int in_scope(struct sock *sk, struct socket_state *state, u32 pid)
{
	if (!port_in_scope(sk))
		return 0;
#if KT_FILTER_PIDS || KT_FILTER_CGROUPS || KT_FILTER_NETNS
	if (netns_in_scope(state->netns_id))
		return 1;
	/* A "no" is asked again each time: the recorder may have learnt of a new container since. */
	if (pid && (!state->scope || state->scope_pid != pid)) {
		state->scope_pid = pid;
		state->scope = process_in_scope(pid);
	}
	return state->scope;
#else
	return 1;
#endif
}

#if KT_DIRECT
#define TCP(sk) ((struct tcp_sock *)bpf_skc_to_tcp_sock(sk))
#else
#define TCP(sk) ((struct tcp_sock *)(sk))
#endif

#define SAMPLE_INTERVAL_NS 100000000ULL

static __always_inline void sample(struct tcp_sock *tp, struct sock *sk, struct socket_state *state, u64 now, u8 reason)
{
	struct tcp_sample_event event = {};
	state->sample_ns = now;
	event.ts_ns = now;
	event.kind = EVENT_TCP_SAMPLE;
	event.reason = reason;
	event.socket_id = state->id;
	event.srtt_us8 = GET(tp, srtt_us);
	event.rttvar_us4 = GET(tp, rttvar_us);
	event.min_rtt_us = GET(tp, rtt_min.s[0].v);
	event.cwnd_segments = GET(tp, snd_cwnd);
	event.ssthresh_segments = GET(tp, snd_ssthresh);
	event.rate_delivered = GET(tp, rate_delivered);
	event.rate_interval_us = GET(tp, rate_interval_us);
	event.mss_bytes = GET(tp, mss_cache);
	event.retransmit_count = GET(tp, total_retrans);
	event.sent_bytes = GET(tp, bytes_sent);
	event.acked_bytes = GET(tp, bytes_acked);
	event.received_bytes = GET(tp, bytes_received);
	event.sent_segments = GET(tp, segs_out);
	event.received_segments = GET(tp, segs_in);
	event.sent_data_segments = GET(tp, data_segs_out);
	event.lost_segments = GET(tp, lost_out);
	event.unacked_segments = GET(tp, packets_out);
	event.reordering = GET(tp, reordering);
	event.send_queue_bytes = GET(tp, write_seq) - GET(tp, snd_una);
	event.receive_queue_bytes = GET(tp, rcv_nxt) - GET(tp, copied_seq);
	event.send_window_bytes = GET(tp, snd_wnd);
	event.receive_window_bytes = GET(tp, rcv_wnd);
	emit(PROBE_TCP, &event, sizeof(event));
}
