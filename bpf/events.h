/* The records that the programs put into the ring buffer.
 *
 * capture/layouts.py reads this file and makes numpy types of the structs marked "event"; the spool carries
 * those types, so that a spool is readable by itself. Times are CLOCK_MONOTONIC in ns, addresses in network
 * order (IPv4 as ::ffff:a.b.c.d), ports in host order. Members keep their natural alignment without holes.
 */
#pragma once

/* kind: the first byte after the time, in every event. */
#define EVENT_DATA 1
#define EVENT_DATAGRAM 2
#define EVENT_CONNECTION 3
#define EVENT_OWNER 4
#define EVENT_STATE 5
#define EVENT_TCP_SAMPLE 6
#define EVENT_PACKET 7
#define EVENT_PROCESS 8
#define EVENT_SLICE 9
#define EVENT_BLOCK_IO 10
#define EVENT_TLS 11
#define EVENT_TLS_SOCKET 12
#define EVENT_STACK 13

#define DIRECTION_SEND 0
#define DIRECTION_RECEIVE 1

/* event EVENT_DATA: bytes moved by one call on a stream or on a connected datagram socket; captured_bytes of
 * payload follow. hidden_bytes: moved since the event before in this direction by ways that run no probe (splice). */
struct data_event {
	u64 ts_ns;
	u8 kind;
	u8 call;
	u8 direction;
	u8 flags;
	u32 captured_bytes;
	u64 socket_id;
	u64 position;
	u32 size_bytes;
	u32 hidden_bytes;
	u32 pid;
	u32 tid;
};
#define DATA_PAYLOAD_FAULT 1	/* the user's memory could not be read */
#define DATA_ULP 2		/* an upper layer (kTLS) transforms the bytes: position counts plaintext */
#define DATA_CUT 4		/* captured_bytes < size_bytes by limit or policy */
#define DATA_NO_BUFFER 8	/* the call names no buffer (sendfile, io_uring, kernel socket) */

/* event EVENT_DATAGRAM: as data_event on an unconnected socket, with the peer of this datagram. */
struct datagram_event {
	u64 ts_ns;
	u8 kind;
	u8 call;
	u8 direction;
	u8 flags;
	u32 captured_bytes;
	u64 socket_id;
	u64 position;
	u32 size_bytes;
	u32 hidden_bytes;
	u32 pid;
	u32 tid;
	u8 remote_ip[16];
	u16 remote_port;
	u16 reserved_a;
	u32 reserved_b;
};

#define ORIGIN_CONNECT 1	/* this end sent the SYN */
#define ORIGIN_ACCEPT 2		/* this end received the SYN */
#define ORIGIN_FOUND 3		/* seen in use: it existed, or its making was not seen */

/* event EVENT_CONNECTION: a socket got its id; start_ns 0 where its making was not seen. */
struct connection_event {
	u64 ts_ns;
	u8 kind;
	u8 origin;
	u8 family;
	u8 state;
	u32 netns_id;
	u64 socket_id;
	u64 start_ns;
	u64 cgroup_id;
	u8 local_ip[16];
	u8 remote_ip[16];
	u16 local_port;
	u16 remote_port;
	u16 protocol;
	u16 reserved_a;
	u32 pid;
	u32 tid;
};

/* event EVENT_OWNER: the first process seen using a socket that was made in interrupt context. */
struct owner_event {
	u64 ts_ns;
	u8 kind;
	u8 reserved_a;
	u16 reserved_b;
	u32 pid;
	u64 socket_id;
	u64 cgroup_id;
};

/* event EVENT_STATE: a TCP state was left; duration_ns in old_state (0: not known), error: the socket's sk_err. */
struct state_event {
	u64 ts_ns;
	u8 kind;
	u8 old_state;
	u8 new_state;
	u8 reserved_a;
	u32 error;
	u64 socket_id;
	u64 duration_ns;
	u32 pid;
	u32 reserved_b;
};

#define SAMPLE_PERIODIC 0
#define SAMPLE_CLOSE 1

/* event EVENT_TCP_SAMPLE: the kernel's numbers of one connection; *_us microseconds as the kernel keeps them. */
struct tcp_sample_event {
	u64 ts_ns;
	u8 kind;
	u8 reason;
	u16 reserved_a;
	u32 srtt_us8;
	u64 socket_id;
	u32 rttvar_us4;
	u32 min_rtt_us;
	u32 cwnd_segments;
	u32 ssthresh_segments;
	u32 rate_delivered;
	u32 rate_interval_us;
	u32 mss_bytes;
	u32 retransmit_count;
	u64 sent_bytes;
	u64 acked_bytes;
	u64 received_bytes;
	u32 sent_segments;
	u32 received_segments;
	u32 sent_data_segments;
	u32 lost_segments;
	u32 unacked_segments;
	u32 reordering;
	u32 send_queue_bytes;
	u32 receive_queue_bytes;
	u32 send_window_bytes;
	u32 receive_window_bytes;
};

#define PACKET_RETRANSMIT 1
#define PACKET_SYNACK_RETRANSMIT 2
#define PACKET_RESET_SENT 3
#define PACKET_RESET_RECEIVED 4
#define PACKET_DROP 5
#define PACKET_LISTEN_OVERFLOW 6

#define CAUSE_OTHER 0
#define CAUSE_SYN 1
#define CAUSE_FAST 2
#define CAUSE_TIMEOUT 3
#define CAUSE_TAIL_LOSS 4

/* event EVENT_PACKET: what happened to one packet; socket_id 0 where it belongs to no socket known.
 * reason: skb_drop_reason of a drop, CAUSE_* of a retransmission, sk_rst_reason of a reset sent. */
struct packet_event {
	u64 ts_ns;
	u8 kind;
	u8 what;
	u8 direction;
	u8 protocol;
	u32 reason;
	u64 socket_id;
	u64 location;
	u8 local_ip[16];
	u8 remote_ip[16];
	u16 local_port;
	u16 remote_port;
	u32 sequence;
	u32 size_bytes;
	u32 netns_id;
	u32 pid;
	u8 has_sequence;
	u8 reserved_a;
	u16 reserved_b;
};

#define PROCESS_EXEC 1
#define PROCESS_FORK 2
#define PROCESS_EXIT 3
#define PROCESS_OOM_KILL 4
#define PROCESS_THREAD 5

/* event EVENT_PROCESS: what a process did; argument_bytes of command line (NUL between words) follow.
 * status: as wait(2) gives it. PROCESS_THREAD: a thread began. */
struct process_event {
	u64 ts_ns;
	u8 kind;
	u8 what;
	u16 argument_bytes;
	u32 pid;
	u32 tid;
	u32 parent_pid;
	u64 cgroup_id;
	u64 start_ns;
	u32 status;
	u32 uid;
	u32 netns_id;
	u32 reserved_a;
	u8 command[16];
};

#define SLICE_RUNNABLE 0	/* preempted, or gave way */
#define SLICE_SLEEPING 1
#define SLICE_BLOCKED 2
#define SLICE_STOPPED 3
#define SLICE_IDLE 4
#define SLICE_NO_CALL (~0U)

/* event EVENT_SLICE: a thread's stay on a CPU, in_ns to ts_ns, and the time off the CPU before it: off_ns to woke_ns
 * in `state` and system call `call` (SLICE_NO_CALL: none), woke_ns (0: off_ns) to in_ns waiting for a CPU. */
struct slice_event {
	u64 ts_ns;
	u8 kind;
	u8 state;
	u16 cpu;
	u32 pid;
	u32 tid;
	u32 call;
	u64 off_ns;
	u64 woke_ns;
	u64 in_ns;
	u32 waker_tid;
	u32 reserved_a;
};

/* event EVENT_BLOCK_IO: a block device request, issue_ns to ts_ns on the device. operation: enum req_op; queue_ns before
 * that, all ones where it is not known; pid 0: a kernel thread asked. */
struct block_io_event {
	u64 ts_ns;
	u8 kind;
	u8 operation;
	u16 reserved_a;
	u32 size_bytes;
	u64 issue_ns;
	u64 queue_ns;
	u32 pid;
	u32 error;
	u8 device[32];
	u8 command[16];
};

#define TLS_HANDSHAKE 0
#define TLS_SSL_READ 1
#define TLS_SSL_WRITE 2
#define TLS_SSL_READ_EX 3
#define TLS_SSL_WRITE_EX 4
#define TLS_GNUTLS_RECEIVE 5
#define TLS_GNUTLS_SEND 6
#define TLS_GO_READ 7
#define TLS_GO_WRITE 8

/* event EVENT_TLS: a call of a TLS library, enter_ns to ts_ns; captured_bytes of plaintext follow. session_id: unique
 * in its process; position: plaintext bytes of the session before, in this direction. TLS_HANDSHAKE moves none.
 * flags: DATA_PAYLOAD_FAULT, DATA_CUT. */
struct tls_event {
	u64 ts_ns;
	u8 kind;
	u8 call;
	u8 direction;
	u8 flags;
	u32 captured_bytes;
	u64 session_id;
	u64 position;
	u64 enter_ns;
	u32 size_bytes;
	u32 pid;
	u32 tid;
	u32 reserved_a;
};

/* event EVENT_TLS_SOCKET: the socket below a session, where the library itself names it (Go). */
struct tls_socket_event {
	u64 ts_ns;
	u8 kind;
	u8 reserved_a;
	u16 reserved_b;
	u32 netns_id;
	u64 session_id;
	u8 local_ip[16];
	u8 remote_ip[16];
	u16 local_port;
	u16 remote_port;
	u32 pid;
};

/* event EVENT_STACK: what a CPU was executing; kernel_frames, then user_frames addresses of 8 bytes follow, of each the
 * innermost first. */
struct stack_event {
	u64 ts_ns;
	u8 kind;
	u8 reserved_a;
	u16 cpu;
	u32 pid;
	u32 tid;
	u16 kernel_frames;
	u16 user_frames;
};
