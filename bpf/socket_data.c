/* Question: which bytes did processes move over TCP and UDP sockets, when, and where in the stream?
 *
 * sock_send_length and sock_recv_length (kernel 6.3+) run where a socket call has completed, still inside the
 * system call: the call's arguments stand in the task's saved user registers, the bytes in the user's memory.
 * No other system call pays for it. Errors run them too (ret < 0).
 */
#include "sockets.h"
#include "calls.h"
#include "peers.h"
#include "tls_ports.h"

#if KT_PAYLOAD_MAX < 256
#define BUFFER_BYTES 256
#else
#define BUFFER_BYTES KT_PAYLOAD_MAX	/* a power of two */
#endif
#define MAX_VECTORS 64		/* more are seen in no server measured; the rest counts as truncated */
#define BULK_BYTES 256		/* of each event in the middle of a bulk transfer, enough for frame headers */

/* An event being made. A stream's head ends where a datagram's longer one does, right before the payload.
 * Offsets are masked to below BUFFER_BYTES and lengths to below twice that, so all stay inside. */
#define HEAD_GAP (sizeof(struct datagram_event) - sizeof(struct data_event))
struct scratch {
	/* Progress of the loop over a call's buffers. It lives here, not in registers: the verifier follows
	 * each register's history from turn to turn and runs out of patience, memory has no history. */
	u64 vectors;
	u64 left;		/* bytes wanted yet */
	u64 done;
	u64 failed;
	struct datagram_event head;
	u8 payload[3 * BUFFER_BYTES];
};

/* One per CPU; the programs run in process context with preemption off, so no other can interfere. */
BPF_ARRAY(scratches, struct scratch, KT_CPUS);

struct batch {
	u64 vector;		/* the user's array of messages */
	u32 next;		/* index of the next message in the running call */
	u32 length;
};
/* sendmmsg and recvmmsg complete one message after another: where the thread stands. Made and deleted here. */
BPF_TABLE("lru_hash", u64, struct batch, batches, 16384);

/* The buffers of one call. flat: base and length; else count vectors at `base`. */
struct buffers {
	u64 base;
	u64 name;		/* user's sockaddr of the peer, 0: none */
	u32 count;
	u8 flat;
	u8 call;
};

static __always_inline void from_message(struct buffers *found, u64 message)
{
	struct user_msghdr header = {};
	bpf_probe_read_user(&header, sizeof(header), (void *)message);
	found->base = (u64)header.msg_iov;
	found->count = header.msg_iovlen;
	found->name = (u64)header.msg_name;
}

/* Which of the messages of sendmmsg or recvmmsg has just completed? The calls stop at the first error, and
 * errors run the probe as well, so a count per thread stays exact. */
static __always_inline u32 batch_index(u64 thread, u64 vector, u32 length)
{
	struct batch *known = batches.lookup(&thread);
	if (known && known->vector == vector && known->length == length && known->next < length) {
		u32 index = known->next;
		known->next += 1;
		if (known->next >= length)
			batches.delete(&thread);
		return index;
	}
	if (length > 1) {
		struct batch fresh = {.vector = vector, .next = 1, .length = length};
		batches.update(&thread, &fresh);
	}
	return 0;
}

static __always_inline int find_buffers(struct registers *regs, struct buffers *found, u64 thread, int failed)
{
	u64 number = regs->number;
	found->call = CALL_OTHER;
	found->flat = 1;
	found->base = 0;
	found->name = 0;
	found->count = 0;
	if (number == NR_READ || number == NR_WRITE) {
		found->call = number == NR_READ ? CALL_READ : CALL_WRITE;
		found->base = regs->arg[1];
	} else if (number == NR_SENDTO || number == NR_RECVFROM) {
		found->call = number == NR_SENDTO ? CALL_SENDTO : CALL_RECVFROM;
		found->base = regs->arg[1];
		found->name = regs->arg[4];
	} else if (number == NR_READV || number == NR_WRITEV || number == NR_PREADV2 || number == NR_PWRITEV2) {
		found->call = number == NR_READV || number == NR_PREADV2 ? CALL_READV : CALL_WRITEV;
		found->flat = 0;
		found->base = regs->arg[1];
		found->count = regs->arg[2];
	} else if (number == NR_SENDMSG || number == NR_RECVMSG) {
		found->call = number == NR_SENDMSG ? CALL_SENDMSG : CALL_RECVMSG;
		found->flat = 0;
		if (!failed)
			from_message(found, regs->arg[1]);
	} else if (number == NR_SENDMMSG || number == NR_RECVMMSG) {
		found->call = number == NR_SENDMMSG ? CALL_SENDMMSG : CALL_RECVMMSG;
		found->flat = 0;
		if (failed) {
			batches.delete(&thread);
		} else {
			u32 index = batch_index(thread, regs->arg[1], regs->arg[2]);
			from_message(found, regs->arg[1] + (u64)index * sizeof(struct mmsghdr));
		}
	} else if (number == NR_SENDFILE) {
		found->call = CALL_SENDFILE;
	} else if (number == NR_SPLICE) {
		found->call = CALL_SPLICE;
	} else if (number == NR_IO_URING_ENTER) {
		found->call = CALL_IO_URING;
	}
	return 0;
}

/* Hides from the compiler what it knows of a number, so that the mask after it is kept for the verifier. */
#define masked(number, mask) ({ u64 _n = (number); asm volatile("" : "+r"(_n)); _n &= (mask); _n; })

/* Copies up to `limit` of the `size` bytes moved; returns how many, sets *fault. */
static __always_inline u32 copy_payload(volatile struct scratch *scratch, struct buffers *from, u32 size, u32 limit,
					u8 *fault)
{
	u8 *into = (u8 *)scratch->payload;
	u32 want = size < limit ? size : limit;
	if (want > BUFFER_BYTES)
		want = BUFFER_BYTES;
	if (!from->base || !want)
		return 0;
	if (from->flat) {
		if (bpf_probe_read_user(into, masked(want, 2 * BUFFER_BYTES - 1), (void *)from->base)) {
			*fault = 1;
			return 0;
		}
		return want;
	}
	scratch->vectors = from->base;
	scratch->left = want;
	scratch->done = 0;
	scratch->failed = 0;
	u64 count = from->count;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < MAX_VECTORS; i++) {
		/* Or the compiler counts another way, and the verifier loses the bound. */
		asm volatile("" : "+r"(i));
		struct iovec vector = {};
		u64 left = scratch->left;
		if (!left || i >= count)
			break;
		scratch->failed |= bpf_probe_read_user(&vector, sizeof(vector), (void *)scratch->vectors);
		scratch->vectors += sizeof(vector);
		/* The smaller one, without a branch for the verifier to follow. */
		s64 more = vector.iov_len - left;
		left += more & (more >> 63);
		scratch->failed |= bpf_probe_read_user(into + masked(scratch->done, BUFFER_BYTES - 1),
						       masked(left, 2 * BUFFER_BYTES - 1), vector.iov_base);
		scratch->done += left;
		scratch->left -= left;
	}
	if (scratch->failed) {
		*fault = 1;
		return 0;
	}
	return scratch->done;
}

static __always_inline u32 payload_limit(struct socket_state *state, u8 direction)
{
#if KT_PAYLOAD_NONE
	return 0;
#elif KT_PAYLOAD_HEADERS
	if (state->run_direction != direction) {
		state->run_direction = direction;
		state->run_bytes = 0;
	}
	if (state->run_bytes >= 4 * KT_PAYLOAD_BYTES)
		return BULK_BYTES < KT_PAYLOAD_BYTES ? BULK_BYTES : KT_PAYLOAD_BYTES;
	return KT_PAYLOAD_BYTES;
#else
	return KT_PAYLOAD_BYTES;
#endif
}

/* The peer's address of a sendto or sendmsg, from the user's sockaddr. */
static __always_inline int user_address(u64 name, u8 *ip, u16 *port)
{
	u8 address[28] = {};
	if (!name || bpf_probe_read_user(address, 28, (void *)name)) {
		/* A sockaddr_in at the very end of a mapping is shorter. */
		if (!name || bpf_probe_read_user(address, 16, (void *)name))
			return 0;
	}
	*port = bpf_ntohs(*(u16 *)(address + 2));
	if (*(u16 *)address == AF_INET6) {
		__builtin_memcpy(ip, address + 8, 16);
	} else {
		v4_address(ip, *(u32 *)(address + 4));
	}
	return 1;
}

#if KT_CONTROL
/* Under a CPU budget only a share of all connections (in 256ths, by a hash of their ids) is recorded, each of them
 * whole: half a connection would be of no use. */
static __always_inline int thinned(struct socket_state *state)
{
	u32 hash = (u32)(state->id >> 16 ^ state->id << 4) * 2654435761u >> 24;
	return hash >= controlled(CONTROL_SHARE);
}
#endif

#define SOCK_DONE_FLAG 2	/* SOCK_DONE of include/net/sock.h: the peer's FIN has arrived */
#define MSG_OOB 1
#define MSG_PEEK 2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

static __always_inline int moved(struct sock *sk, int result, int flags, u8 direction)
{
	u16 family = GET(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	u16 protocol = protocol_of(sk);
	int stream = protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
	if (!stream && protocol != IPPROTO_UDP)
		return 0;
	if (direction == DIRECTION_RECEIVE && flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	struct task_struct *task = current_task();
	u64 thread = thread_of(task);
	u32 pid = thread >> 32;
	if (result < 0 || (stream && result == 0)) {
		if (!stream && result < 0) {
			struct registers regs;
			struct buffers unused;
			read_registers(task, &regs);
			if (regs.number == NR_SENDMMSG || regs.number == NR_RECVMMSG)
				find_buffers(&regs, &unused, thread, 1);
		}
		return 0;
	}
	if (pid == KT_SELF_PID)
		return 0;
	struct socket_state *state = state_of(sk, direction, ORIGIN_FOUND);
	if (!state) {
		count(PROBE_SOCKET, COUNT_MAP_FULL, 1);
		return 0;
	}
	int wanted = in_scope(sk, state, pid);
	tls_port_seen(thread, wanted);
	if (!wanted)
		return 0;
#if KT_CONTROL
	if (thinned(state)) {
		state->thinned = 1;
		count(PROBE_SOCKET, COUNT_THINNED, 1);
		return 0;
	}
#endif
	u64 now = bpf_ktime_get_ns();
	if (!is_told(state)) {
		state->pid = pid;
		tell(sk, state, now, thread, current_cgroup());
	} else if (!state->pid) {
		struct owner_event owner = {};
		state->pid = pid;
		used_by(pid);
		owner.ts_ns = now;
		owner.kind = EVENT_OWNER;
		owner.pid = pid;
		owner.socket_id = state->id;
		owner.cgroup_id = current_cgroup();
		emit(PROBE_CONNECTION, &owner, sizeof(owner));
	}

	u8 mark = 0;
	u64 position = 0;
	u32 hidden = 0;
	int out_of_band = direction == DIRECTION_RECEIVE && flags & MSG_OOB;
	if (protocol == IPPROTO_TCP) {
		struct tcp_sock *tp = TCP(sk);
		if (!tp)
			return 0;
		if (GET(tp, inet_conn.icsk_ulp_ops)) {
			mark = DATA_ULP;
			position = state->next[direction & 1];
			state->next[direction & 1] = position + result;
		} else if (!out_of_band) {
			u32 end = direction == DIRECTION_SEND ? GET(tp, write_seq) : GET(tp, copied_seq);
			/* Who reads the last byte may take the FIN behind it with it; it has a number, and is no byte. */
			if (direction == DIRECTION_RECEIVE && GET(sk, __sk_common.skc_flags) & SOCK_DONE_FLAG && end == GET(tp, rcv_nxt))
				end -= 1;
			u64 before = state->next[direction & 1];
			if (!state->known[direction & 1]) {
				/* So far above zero that a late first byte cannot pass below it. */
				before = (1ULL << 32) + (u32)(end - (u32)result);
				state->known[direction & 1] = 1;
			}
			u64 after = before + (s32)(end - (u32)before);
			position = after - (u32)result;
			if (position > before)
				hidden = position - before;
#if KT_CONTROL
			if (state->thinned)
				hidden = 0;
			state->thinned = 0;
#endif
			if (after > before)
				state->next[direction & 1] = after;
		}
		if (now - state->sample_ns > SAMPLE_INTERVAL_NS)
			sample(tp, sk, state, now, SAMPLE_PERIODIC);
	} else if (stream) {
		position = state->next[direction & 1];
		state->next[direction & 1] = position + result;
	}

	struct registers regs;
	struct buffers found;
	read_registers(task, &regs);
	find_buffers(&regs, &found, thread, 0);
	if (out_of_band || (stream && direction == DIRECTION_RECEIVE && flags & MSG_TRUNC))
		found.base = 0;
	if (!found.base)
		mark |= DATA_NO_BUFFER;

	u32 cpu = bpf_get_smp_processor_id();
	u8 fault = 0;
	u32 limit = payload_limit(state, direction);
	struct scratch *scratch = scratches.lookup(&cpu);
	if (!scratch)
		return 0;
	u32 captured = copy_payload(scratch, &found, result, limit, &fault);
	u64 size = sizeof(struct data_event) + captured;
	struct data_event *event = (struct data_event *)((u8 *)&scratch->head + HEAD_GAP);
	u8 kind = EVENT_DATA;
	if (!stream && (GET(sk, __sk_common.skc_dport) == 0 || (direction == DIRECTION_SEND && found.name))) {
		kind = EVENT_DATAGRAM;
		event = (struct data_event *)&scratch->head;
		size += HEAD_GAP;
		__builtin_memset(scratch->head.remote_ip, 0, sizeof(scratch->head.remote_ip));
		scratch->head.remote_port = 0;
		if (direction == DIRECTION_SEND) {
			user_address(found.name, scratch->head.remote_ip, &scratch->head.remote_port);
		}
		else {
			u64 key = (u64)task;
			struct udp_peer *peer = udp_peers.lookup(&key);
			if (peer) {
				__builtin_memcpy(scratch->head.remote_ip, peer->ip, 16);
				scratch->head.remote_port = peer->port;
				udp_peers.delete(&key);
			}
		}
#ifdef KT_PORT_FILTER
		if (!KT_PORT_FILTER(GET(sk, __sk_common.skc_num)) && !KT_PORT_FILTER(scratch->head.remote_port))
			return 0;
#endif
	}
	if (fault)
		mark |= DATA_PAYLOAD_FAULT;
	if (captured < (u32)result)
		mark |= DATA_CUT;
	state->run_bytes += captured;
	event->ts_ns = now;
	event->kind = kind;
	event->call = found.call;
	event->direction = direction;
	event->flags = mark;
	event->captured_bytes = captured;
	event->socket_id = state->id;
	event->position = position;
	event->size_bytes = result;
	event->hidden_bytes = hidden;
	event->pid = pid;
	event->tid = thread;
	if (kind == EVENT_DATAGRAM)
		emit(PROBE_SOCKET, &scratch->head, masked(size, 2 * BUFFER_BYTES - 1));
	else
		emit(PROBE_SOCKET, event, masked(size, 2 * BUFFER_BYTES - 1));
	return 0;
}

int socket_send(u64 *ctx)
{
	return moved((struct sock *)ctx[0], (int)ctx[1], 0, DIRECTION_SEND);
}

int socket_receive(u64 *ctx)
{
	return moved((struct sock *)ctx[0], (int)ctx[1], (int)ctx[2], DIRECTION_RECEIVE);
}
