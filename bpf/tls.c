/* Question: which bytes did processes hand to their TLS libraries, and get from them, in clear?
 *
 * uprobes at the entries and returns of SSL_read, SSL_write (and _ex), gnutls_record_recv and _send, and Go's
 * (*tls.Conn).Read and Write; capture/tls.py finds the functions. A return probe moves the return address, which Go's
 * stack copies do not bear: there the probes stand on the RET instructions. To which connection a session belongs is
 * decided when the recording is over, from the socket calls of the same thread inside these calls; of Go, whose
 * routines change threads, the session's socket is looked up here.
 *
 * These programs may be preempted (6.x), so scratch memory is taken and given back.
 */
#include "common.h"
#include "tls_ports.h"

#define TLS_BUFFER_BYTES KT_PAYLOAD_MAX	/* a power of two, 256 at least */
#define TLS_BULK_BYTES 256
#define TLS_SLOTS 4			/* per CPU: programs that may be interrupted by each other */

struct tls_caller {
	u64 pid;
	u64 thread;		/* pid and tid; of Go the routine's address */
};
struct tls_call {
	u64 enter_ns;
	u64 session;		/* SSL *, gnutls_session_t, *tls.Conn */
	u64 buffer;
	u64 moved;		/* _ex: address of the count of bytes, else 0 */
	u8 call;
	u8 direction;
	u8 wide;		/* the result has 64 bits */
};
/* The call a thread (Go: a routine) is in. Made at the entry, deleted at the return. An inner call takes the place of
 * the outer one, which is right where a library's functions call each other. */
BPF_TABLE("lru_hash", struct tls_caller, struct tls_call, tls_calls, 16384);

struct tls_session_key {
	u64 pid;
	u64 session;
};
struct tls_session {
	u64 id;
	u64 position[2];	/* plaintext bytes so far, by direction */
	u32 run_bytes;
	u32 run_direction;
	u32 socket_told;
	u32 unwanted;		/* its socket is not in scope by port */
};
/* Made at a session's first call, deleted where it is freed; the rest leaves by age. */
BPF_TABLE("lru_hash", struct tls_session_key, struct tls_session, tls_sessions, 32768);

struct tls_scratch {
	u64 busy;
	struct tls_event event;
	u8 payload[2 * TLS_BUFFER_BYTES];
};
BPF_ARRAY(tls_scratches, struct tls_scratch, KT_CPUS * TLS_SLOTS);

/* Whether any event was told: a recording without any is converted in one pass. */
BPF_ARRAY(tls_seen, u32, 1);

/* Hides from the compiler what it knows of a number, so that the mask after it is kept for the verifier. */
#define bounded(number, mask) ({ u64 _n = (number); asm volatile("" : "+r"(_n)); _n &= (mask); _n; })

static __always_inline u32 tls_netns(struct task_struct *task)
{
	struct nsproxy *proxy = READ(task, nsproxy);
	if (!proxy)
		return 0;
	struct net *net = READ(proxy, net_ns);
	return READ(net, ns.inum);
}

static __always_inline int tls_in_scope(u32 pid)
{
	if (pid == KT_SELF_PID)
		return 0;
#if KT_FILTER_PIDS || KT_FILTER_CGROUPS || KT_FILTER_NETNS
	return process_in_scope(pid) || netns_in_scope(tls_netns((struct task_struct *)bpf_get_current_task()));
#else
	return 1;
#endif
}

static __always_inline struct tls_session *tls_session_of(u32 pid, u64 session)
{
	struct tls_session_key key = {.pid = pid, .session = session};
	struct tls_session *known = tls_sessions.lookup(&key);
	if (known)
		return known;
	struct tls_session fresh = {};
	/* Unique within the process: two CPUs never make two of the same nanoseconds and number. */
	fresh.id = (bpf_ktime_get_ns() & ~0xffULL) | (bpf_get_smp_processor_id() & 0xff);
	fresh.run_direction = 2;
	tls_sessions.update(&key, &fresh);
	return tls_sessions.lookup(&key);
}

static __always_inline int tls_enter(u64 thread, struct tls_call *call)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	if (!tls_in_scope(pid))
		return 0;
	struct tls_caller caller = {.pid = pid, .thread = thread};
	call->enter_ns = bpf_ktime_get_ns();
	tls_calls.update(&caller, call);
	return 0;
}

static __always_inline u32 tls_limit(struct tls_session *session, u8 direction)
{
#if KT_PAYLOAD_NONE
	return 0;
#elif KT_PAYLOAD_HEADERS
	if (session->run_direction != direction) {
		session->run_direction = direction;
		session->run_bytes = 0;
	}
	if (session->run_bytes >= 4 * KT_PAYLOAD_BYTES)
		return TLS_BULK_BYTES < KT_PAYLOAD_BYTES ? TLS_BULK_BYTES : KT_PAYLOAD_BYTES;
	return KT_PAYLOAD_BYTES;
#else
	return KT_PAYLOAD_BYTES;
#endif
}

static __always_inline struct tls_scratch *tls_scratch_slot(void)
{
	u32 first = bpf_get_smp_processor_id() * TLS_SLOTS;
#pragma unroll
	for (u32 i = 0; i < TLS_SLOTS; i++) {
		u32 key = first + i;
		struct tls_scratch *scratch = tls_scratches.lookup(&key);
		if (scratch && !scratch->busy) {
			scratch->busy = 1;
			return scratch;
		}
	}
	return 0;
}

static __always_inline int tls_leave(u64 thread, s64 result)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct tls_caller caller = {.pid = pid_tgid >> 32, .thread = thread};
	struct tls_call *entered = tls_calls.lookup(&caller);
	if (!entered)
		return 0;
	struct tls_call call = *entered;
	tls_calls.delete(&caller);
	/* A routine of Go may have changed threads: its session's own socket was looked at. */
	if (call.call < TLS_GO_READ && !tls_port_in_scope(thread))
		return 0;
	u64 size = 0;
	if (call.call != TLS_HANDSHAKE) {
		if (!call.wide)
			result = (s32)result;
		if (result <= 0)
			return 0;
		size = result;
		if (call.moved && bpf_probe_read_user(&size, sizeof(size), (void *)call.moved))
			return 0;
		if (!size || size > 0x7fffffff)
			return 0;
	}
	struct tls_session *session = tls_session_of(caller.pid, call.session);
	if (!session) {
		count(PROBE_TLS, COUNT_MAP_FULL, 1);
		return 0;
	}
	if (session->unwanted)
		return 0;
	u64 position = session->position[call.direction & 1];
	session->position[call.direction & 1] = position + size;
	struct tls_scratch *scratch = tls_scratch_slot();
	if (!scratch) {
		count(PROBE_TLS, COUNT_LOST, 1);
		return 0;
	}
	struct tls_event *event = &scratch->event;
	u64 captured = size, limit = tls_limit(session, call.direction);
	u8 mark = 0;
	if (captured > limit)
		captured = limit;
	captured = bounded(captured, 2 * TLS_BUFFER_BYTES - 1);
	if (captured && bpf_probe_read_user(scratch->payload, captured, (void *)call.buffer)) {
		captured = 0;
		mark |= DATA_PAYLOAD_FAULT;
	}
	if (captured < size)
		mark |= DATA_CUT;
	session->run_bytes += captured;
	event->ts_ns = bpf_ktime_get_ns();
	event->kind = EVENT_TLS;
	event->call = call.call;
	event->direction = call.direction;
	event->flags = mark;
	event->captured_bytes = captured;
	event->session_id = session->id;
	event->position = position;
	event->enter_ns = call.enter_ns;
	event->size_bytes = size;
	event->pid = caller.pid;
	event->tid = pid_tgid;
	event->reserved_a = 0;
	u32 zero = 0;
	u32 *seen = tls_seen.lookup(&zero);
	if (seen)
		*seen = 1;
	u64 total = sizeof(*event) + captured;
	emit(PROBE_TLS, event, bounded(total, 2 * TLS_BUFFER_BYTES - 1));
	scratch->busy = 0;
	return 0;
}

#define ENTER_C(number, way, wide_result, moved_at) \
{ \
	struct tls_call call = {.session = PT_REGS_PARM1(ctx), .buffer = PT_REGS_PARM2(ctx), .moved = moved_at, \
				.call = number, .direction = way, .wide = wide_result}; \
	return tls_enter(bpf_get_current_pid_tgid(), &call); \
}

int openssl_read(struct pt_regs *ctx) ENTER_C(TLS_SSL_READ, DIRECTION_RECEIVE, 0, 0)
int openssl_write(struct pt_regs *ctx) ENTER_C(TLS_SSL_WRITE, DIRECTION_SEND, 0, 0)
int openssl_read_ex(struct pt_regs *ctx) ENTER_C(TLS_SSL_READ_EX, DIRECTION_RECEIVE, 0, PT_REGS_PARM4(ctx))
int openssl_write_ex(struct pt_regs *ctx) ENTER_C(TLS_SSL_WRITE_EX, DIRECTION_SEND, 0, PT_REGS_PARM4(ctx))
int gnutls_receive(struct pt_regs *ctx) ENTER_C(TLS_GNUTLS_RECEIVE, DIRECTION_RECEIVE, 1, 0)
int gnutls_send(struct pt_regs *ctx) ENTER_C(TLS_GNUTLS_SEND, DIRECTION_SEND, 1, 0)
int tls_handshake(struct pt_regs *ctx) ENTER_C(TLS_HANDSHAKE, DIRECTION_SEND, 0, 0)

int tls_return(struct pt_regs *ctx)
{
	return tls_leave(bpf_get_current_pid_tgid(), PT_REGS_RC(ctx));
}

/* What comes at the same address later is another session. */
int tls_free(struct pt_regs *ctx)
{
	struct tls_session_key key = {.pid = bpf_get_current_pid_tgid() >> 32, .session = PT_REGS_PARM1(ctx)};
	tls_sessions.delete(&key);
	return 0;
}

/* Go's own calling convention (1.18+): the routine in a register of its own, arguments and results in registers. */
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define GO_ROUTINE(ctx) ((ctx)->regs[28])
#define GO_RECEIVER(ctx) ((ctx)->regs[0])
#define GO_BUFFER(ctx) ((ctx)->regs[1])
#define GO_RESULT(ctx) ((ctx)->regs[0])
#else
#define GO_ROUTINE(ctx) ((ctx)->r14)
#define GO_RECEIVER(ctx) ((ctx)->ax)
#define GO_BUFFER(ctx) ((ctx)->bx)
#define GO_RESULT(ctx) ((ctx)->ax)
#endif

/* The socket below a tls.Conn: its first member is the interface net.Conn, whose value is a *net.TCPConn, whose only
 * member is a *netFD, which begins with poll.FD: a lock of 16 bytes, then the descriptor. Where it is another kind of
 * net.Conn, what stands there names no socket of the Internet families, or one that speaks no TLS. */
static __always_inline int go_socket(u64 conn, struct tls_session *session, u32 pid)
{
	u64 value = 0, net_fd = 0;
	s32 descriptor = -1;
	bpf_probe_read_user(&value, sizeof(value), (void *)(conn + 8));
	bpf_probe_read_user(&net_fd, sizeof(net_fd), (void *)value);
	if (bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)(net_fd + 16)))
		return 0;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct files_struct *files = READ(task, files);
	struct fdtable *table = READ(files, fdt);
	if (descriptor < 0 || (u32)descriptor >= READ(table, max_fds))
		return 0;
	struct file **slots = READ(table, fd);
	struct file *file = 0;
	bpf_probe_read_kernel(&file, sizeof(file), slots + descriptor);
	if (!file)
		return 0;
	struct socket *socket = READ(file, private_data);
	if (READ(socket, file) != file)
		return 0;	/* not a socket's file */
	struct sock *sk = READ(socket, sk);
	u16 family = READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	struct tls_socket_event event = {};
	event.ts_ns = bpf_ktime_get_ns();
	event.kind = EVENT_TLS_SOCKET;
	event.session_id = session->id;
	event.pid = pid;
	if (family == AF_INET6) {
		bpf_probe_read_kernel(event.local_ip, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(event.remote_ip, 16, &sk->__sk_common.skc_v6_daddr);
	} else {
		v4_address(event.local_ip, READ(sk, __sk_common.skc_rcv_saddr));
		v4_address(event.remote_ip, READ(sk, __sk_common.skc_daddr));
	}
	event.local_port = READ(sk, __sk_common.skc_num);
	event.remote_port = bpf_ntohs(READ(sk, __sk_common.skc_dport));
#ifdef KT_PORT_FILTER
	if (!KT_PORT_FILTER(event.local_port) && !KT_PORT_FILTER(event.remote_port)) {
		session->unwanted = 1;
		return 1;
	}
#endif
	struct net *net = READ(sk, __sk_common.skc_net.net);
	event.netns_id = READ(net, ns.inum);
	emit(PROBE_TLS, &event, sizeof(event));
	return 1;
}

static __always_inline int go_enter(struct pt_regs *ctx, u8 number, u8 direction)
{
	struct tls_call call = {.session = GO_RECEIVER(ctx), .buffer = GO_BUFFER(ctx), .call = number,
				.direction = direction, .wide = 1};
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	if (!tls_in_scope(pid))
		return 0;
	struct tls_session *session = tls_session_of(pid, call.session);
	if (session && !session->socket_told)
		session->socket_told = go_socket(call.session, session, pid);
	return tls_enter(GO_ROUTINE(ctx), &call);
}

int go_read(struct pt_regs *ctx)
{
	return go_enter(ctx, TLS_GO_READ, DIRECTION_RECEIVE);
}

int go_write(struct pt_regs *ctx)
{
	return go_enter(ctx, TLS_GO_WRITE, DIRECTION_SEND);
}

int go_return(struct pt_regs *ctx)
{
	return tls_leave(GO_ROUTINE(ctx), GO_RESULT(ctx));
}

/* (*tls.Conn).Close */
int go_close(struct pt_regs *ctx)
{
	struct tls_session_key key = {.pid = bpf_get_current_pid_tgid() >> 32, .session = GO_RECEIVER(ctx)};
	tls_sessions.delete(&key);
	return 0;
}
