/* Question: how long did block devices take for each request, and who asked?
 *
 * block_rq_issue and block_rq_complete; block_rq_insert for who asked where another thread hands the request to the
 * driver (schedulers, plugged queues). Written-back pages are asked for by kernel threads: whose they were is not known.
 * Sources: kernel include/trace/events/block.h, block/blk-mq.c (start_time_ns: when the request was made, kept where
 * the queue accounts times), include/linux/blk_types.h (enum req_op).
 * block_rq_issue and block_rq_insert have the queue as first argument up to kernel 5.10 (KT_BLOCK_QUEUE).
 */
#include "common.h"
#include "calls.h"

#define REQUEST_OPERATION 0xff

struct block_request {
	u64 issue_ns;		/* 0: only inserted */
	u64 queue_ns;
	u64 made_ns;		/* start_time_ns: a request merged into another ends without a word, and its place is used again */
	u32 size_bytes;
	u32 pid;
	u8 command[16];
};
/* By address of the request, from its insertion, or issue, to its completion. */
BPF_HASH(block_requests, u64, struct block_request, 16384);

#ifdef KT_BLOCK_QUEUE
#define BLOCK_REQUEST(ctx) ((struct request *)(ctx)[1])
#else
#define BLOCK_REQUEST(ctx) ((struct request *)(ctx)[0])
#endif

static __always_inline int block_wanted(u32 pid)
{
#if KT_FILTER_PIDS || KT_FILTER_CGROUPS
	return process_in_scope(pid);
#else
	return 1;
#endif
}

static __always_inline void asked_by(struct block_request *request)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	if (READ(task, flags) & PF_KTHREAD)
		return;
	request->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(request->command, sizeof(request->command));
}

int block_insert(u64 *ctx)
{
	struct request *rq = BLOCK_REQUEST(ctx);
	u64 key = (u64)rq;
	struct block_request request = {};
	if (!block_wanted(bpf_get_current_pid_tgid() >> 32))
		return 0;
	asked_by(&request);
	request.made_ns = GET(rq, start_time_ns);
	if (block_requests.update(&key, &request))
		count(PROBE_BLOCK_IO, COUNT_MAP_FULL, 1);
	return 0;
}

int block_issue(u64 *ctx)
{
	struct request *rq = BLOCK_REQUEST(ctx);
	u64 key = (u64)rq, now = bpf_ktime_get_ns(), made = GET(rq, start_time_ns);
	struct block_request *known = block_requests.lookup(&key), request = {};
	if (known && known->made_ns == made)
		request = *known;
	else if (!block_wanted(bpf_get_current_pid_tgid() >> 32))
		return 0;
	else
		asked_by(&request);
	request.made_ns = made;
	request.issue_ns = now;
	request.queue_ns = made && made <= now ? now - made : ~0ULL;
	request.size_bytes = GET(rq, __data_len);
	if (block_requests.update(&key, &request))
		count(PROBE_BLOCK_IO, COUNT_MAP_FULL, 1);
	return 0;
}

/* A request that is done in parts comes here with each of them: the last one counts. */
int block_complete(u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	u64 key = (u64)rq;
	struct block_request *request = block_requests.lookup(&key);
	if (!request)
		return 0;
	if ((u32)ctx[2] < GET(rq, __data_len))
		return 0;
	if (request->issue_ns) {
		struct block_io_event event = {};
		event.ts_ns = bpf_ktime_get_ns();
		event.kind = EVENT_BLOCK_IO;
		event.operation = GET(rq, cmd_flags) & REQUEST_OPERATION;
		event.error = (u32)ctx[1];
		event.issue_ns = request->issue_ns;
		event.queue_ns = request->queue_ns;
		event.size_bytes = request->size_bytes;
		event.pid = request->pid;
		__builtin_memcpy(event.command, request->command, sizeof(event.command));
#ifdef KT_QUEUE_DISK
		struct gendisk *disk = 0;
		bpf_probe_read_kernel(&disk, sizeof(disk), (void *)GET(rq, q) + KT_QUEUE_DISK);
#else
		struct gendisk *disk = (struct gendisk *)GET(rq, rq_disk);
#endif
		if (disk)
			bpf_probe_read_kernel(event.device, sizeof(event.device), &disk->disk_name);
		emit(PROBE_BLOCK_IO, &event, sizeof(event));
	}
	block_requests.delete(&key);
	return 0;
}
