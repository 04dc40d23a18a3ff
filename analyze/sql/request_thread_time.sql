-- One row: what the thread that served a request did meanwhile, by the scheduler's account. The parts add up to thread_ns.
-- Inputs: request, sched_slice, manifest_node
-- Columns:
--   request_id BIGINT: the request as its server saw it (request.request_id).
--   thread_ns BIGINT: time between taking the request and having answered for which the scheduler was recorded, ns.
--   on_cpu_ns BIGINT: running, ns.
--   run_queue_ns BIGINT: ready to run, waiting for a CPU, ns.
--   lock_ns BIGINT: asleep in futex: waiting for a lock or another thread, ns.
--   timer_ns BIGINT: asleep until a time of its own choice, ns.
--   disk_ns BIGINT: asleep uninterruptibly, or in a call that waits for storage, ns.
--   socket_ns BIGINT: asleep in a call on sockets: waiting for others, or for its next request, ns.
--   other_ns BIGINT: asleep otherwise, or stopped, ns.
WITH _slice AS (
    SELECT s.node, s.tid, s.ts_ns + m.clock_offset_ns AS at_ns, s.duration_ns,
        CASE WHEN s.state = 'running' THEN 'on_cpu' WHEN s.state = 'runnable' THEN 'run_queue' WHEN s.state = 'blocked' THEN 'disk'
            WHEN s.syscall LIKE 'futex%' THEN 'lock'
            WHEN s.syscall IN ('nanosleep', 'clock_nanosleep', 'pause') THEN 'timer'
            WHEN s.syscall IN ('fsync', 'fdatasync', 'sync', 'syncfs', 'msync', 'sync_file_range') THEN 'disk'
            WHEN s.syscall IN ('read', 'recvfrom', 'recvmsg', 'recvmmsg', 'readv', 'write', 'writev', 'sendto', 'sendmsg',
                'sendmmsg', 'connect', 'accept', 'accept4', 'poll', 'ppoll', 'select', 'pselect6', 'epoll_wait', 'epoll_pwait',
                'epoll_pwait2') THEN 'socket'
            ELSE 'other' END AS part
    FROM sched_slice AS s JOIN manifest_node AS m ON m.node = s.node
),
_running AS (
    -- A thread's slices follow each other: running sums answer for any window with two look-ups.
    SELECT *, coalesce(sum(duration_ns) OVER w, 0) AS all_before,
        coalesce(sum(duration_ns) FILTER (part = 'on_cpu') OVER w, 0) AS on_cpu,
        coalesce(sum(duration_ns) FILTER (part = 'run_queue') OVER w, 0) AS run_queue,
        coalesce(sum(duration_ns) FILTER (part = 'lock') OVER w, 0) AS lock,
        coalesce(sum(duration_ns) FILTER (part = 'timer') OVER w, 0) AS timer,
        coalesce(sum(duration_ns) FILTER (part = 'disk') OVER w, 0) AS disk,
        coalesce(sum(duration_ns) FILTER (part = 'socket') OVER w, 0) AS socket
    FROM _slice
    WINDOW w AS (PARTITION BY node, tid ORDER BY at_ns ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
_edge AS (
    SELECT request_id, node, tid, start_ns AS at_ns, -1 AS sign FROM request
    WHERE side = 'server' AND tid IS NOT NULL AND end_ns IS NOT NULL AND coalesce(response_tid, tid) = tid
    UNION ALL
    SELECT request_id, node, tid, end_ns, 1 FROM request
    WHERE side = 'server' AND tid IS NOT NULL AND end_ns IS NOT NULL AND coalesce(response_tid, tid) = tid
),
_first AS (SELECT node, tid, min(at_ns) AS first_ns FROM _running GROUP BY node, tid),
_value AS (
    SELECT e.request_id, e.sign, r.part, least(e.at_ns - r.at_ns, r.duration_ns) AS inside, r.all_before, r.on_cpu, r.run_queue,
        r.lock, r.timer, r.disk, r.socket
    FROM _edge AS e ASOF JOIN _running AS r ON r.node = e.node AND r.tid = e.tid AND r.at_ns <= e.at_ns
    UNION ALL
    -- A thread is known from the first time it left a CPU: one that took its request before that was running.
    SELECT e.request_id, e.sign, 'on_cpu', e.at_ns - f.first_ns, 0, 0, 0, 0, 0, 0, 0
    FROM _edge AS e JOIN _first AS f ON f.node = e.node AND f.tid = e.tid
    WHERE e.sign = -1 AND e.at_ns < f.first_ns
),
_sum AS (
    SELECT request_id, count(*) AS edges, sum(sign * (all_before + inside))::BIGINT AS thread_ns,
        sum(sign * (on_cpu + CASE WHEN part = 'on_cpu' THEN inside ELSE 0 END))::BIGINT AS on_cpu_ns,
        sum(sign * (run_queue + CASE WHEN part = 'run_queue' THEN inside ELSE 0 END))::BIGINT AS run_queue_ns,
        sum(sign * (lock + CASE WHEN part = 'lock' THEN inside ELSE 0 END))::BIGINT AS lock_ns,
        sum(sign * (timer + CASE WHEN part = 'timer' THEN inside ELSE 0 END))::BIGINT AS timer_ns,
        sum(sign * (disk + CASE WHEN part = 'disk' THEN inside ELSE 0 END))::BIGINT AS disk_ns,
        sum(sign * (socket + CASE WHEN part = 'socket' THEN inside ELSE 0 END))::BIGINT AS socket_ns
    FROM _value GROUP BY request_id
)
SELECT request_id, thread_ns, on_cpu_ns, run_queue_ns, lock_ns, timer_ns, disk_ns, socket_ns,
    thread_ns - on_cpu_ns - run_queue_ns - lock_ns - timer_ns - disk_ns - socket_ns AS other_ns
FROM _sum
-- Both ends of the request have to lie in what the scheduler was recorded for.
WHERE edges = 2 AND thread_ns > 0
ORDER BY request_id
