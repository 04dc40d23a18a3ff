/* What all programs share: reading kernel memory, the ring, loss counters, filters, scratch memory.
 *
 * The recorder's loader defines, ahead of this file:
 *   KT_DIRECT         1: typed tracepoint arguments, read in place (tp_btf, kernel 5.5+);
 *                     0: plain raw tracepoints, kernel memory through bpf_probe_read_kernel
 *   KT_RING_PAGES, KT_CPUS, KT_SELF_PID, KT_PAYLOAD_* and the filters
 */
#pragma once
#include <kubetape_types.h>
#include "events.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262

#if KT_DIRECT
#define GET(pointer, field) ((pointer)->field)
#else
#define GET(pointer, field) ({ \
	typeof((pointer)->field) _value = {0}; \
	bpf_probe_read_kernel(&_value, sizeof(_value), &(pointer)->field); \
	_value; })
#endif
/* For pointers of no known type, in both modes. */
#define READ(pointer, field) ({ \
	typeof((pointer)->field) _value = {0}; \
	bpf_probe_read_kernel(&_value, sizeof(_value), &(pointer)->field); \
	_value; })

/* All events of all CPUs, in the order of reservation. Drained by user space every 50 ms, never woken. */
BPF_RINGBUF_OUTPUT(events, KT_RING_PAGES);
#define NO_WAKEUP 1

#define PROBE_SOCKET 0
#define PROBE_CONNECTION 1
#define PROBE_TCP 2
#define PROBE_DROP 3
#define PROBE_PROCESS 4
#define PROBE_SCHEDULER 5
#define PROBE_BLOCK_IO 6
#define PROBE_TLS 7
#define PROBE_STACK 8
#define PROBES 16
#define COUNT_LOST 0
#define COUNT_LOST_BYTES 1
#define COUNT_MAP_FULL 2
#define COUNT_THINNED 3

/* PROBES * 4 counters per CPU, only ever incremented here; read each second by the recorder. */
BPF_PERCPU_ARRAY(counters, u64, PROBES * 4);

static __always_inline void count(u32 probe, u32 what, u64 amount)
{
	u32 key = probe * 4 + what;
	u64 *value = counters.lookup(&key);
	if (value)
		*value += amount;
}

static __always_inline int emit(u32 probe, void *event, u64 size)
{
	if (events.ringbuf_output(event, size, NO_WAKEUP) == 0)
		return 0;
	count(probe, COUNT_LOST, 1);
	count(probe, COUNT_LOST_BYTES, size);
	return -1;
}

#if KT_CONTROL
/* What the recorder turns while it runs, one value each: generation (see is_told), share (see thinned). */
#define CONTROL_GENERATION 0
#define CONTROL_SHARE 1
BPF_ARRAY(control, u32, 2);
static __always_inline u32 controlled(u32 which)
{
	u32 *value = control.lookup(&which);
	return value ? *value : 0;
}
#endif

#if KT_FILTER_PIDS
/* Processes in scope. The recorder inserts; process.c inserts children and deletes the dead. */
BPF_HASH(scope_pids, u32, u8, 65536);
#endif
#if KT_FILTER_CGROUPS
/* Cgroup ids in scope. The recorder inserts and deletes, each second. */
BPF_HASH(scope_cgroups, u64, u8, 16384);
#endif
#if KT_FILTER_NETNS
/* Network namespaces in scope, by inode. The recorder inserts and deletes, each second. */
BPF_HASH(scope_netns, u32, u8, 16384);
#endif

/* The id of the current thread's cgroup in the hierarchy that names the containers here: the unified one, or where that
 * holds none (version 1, systemd's hybrid mode) a controller's, whose folder's inode it is (kernel fs/kernfs, kn->id).
 * KT_CGROUP_*: places in struct css_set, cgroup_subsys_state, cgroup and kernfs_node. */
static __always_inline u64 current_cgroup(void)
{
#ifdef KT_CGROUP_CSS
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	u64 at = (u64)READ(task, cgroups), id = 0;
	bpf_probe_read_kernel(&at, sizeof(at), (void *)(at + KT_CGROUP_CSS));
	bpf_probe_read_kernel(&at, sizeof(at), (void *)(at + KT_CGROUP_OF_CSS));
	bpf_probe_read_kernel(&at, sizeof(at), (void *)(at + KT_CGROUP_NODE));
	bpf_probe_read_kernel(&id, sizeof(id), (void *)(at + KT_CGROUP_NODE_ID));
	return id;
#else
	return bpf_get_current_cgroup_id();
#endif
}

/* Is the current process in scope by pid or cgroup? Only where such a filter is set. */
static __always_inline int process_in_scope(u32 pid)
{
#if KT_FILTER_PIDS
	if (scope_pids.lookup(&pid))
		return 1;
#endif
#if KT_FILTER_CGROUPS
	u64 cgroup = current_cgroup();
	if (scope_cgroups.lookup(&cgroup))
		return 1;
#endif
	return 0;
}

static __always_inline int netns_in_scope(u32 netns)
{
#if KT_FILTER_NETNS
	if (scope_netns.lookup(&netns))
		return 1;
#endif
	return 0;
}

static __always_inline void v4_address(u8 *into, u32 address)
{
	*(u64 *)into = 0;
	*(u32 *)(into + 8) = 0xffff0000;
	*(u32 *)(into + 12) = address;
}
