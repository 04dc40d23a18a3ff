-- One row: where the time of one request went, as far as it was seen. The parts add up to total_ns.
-- Inputs: logical_request, call, child_call, request, request_thread_time
-- Columns:
--   request_id BIGINT: the request (logical_request.request_id).
--   server VARCHAR: who served it.
--   total_ns BIGINT: latency as the caller saw it, else as the server did, ns.
--   network_ns BIGINT: outside of the server: the way, and both kernels' queues, ns. NULL where one side only was seen.
--   proxy_ns BIGINT: in sidecar proxies, ns. NULL without, or when not known: then it is part of network_ns.
--   server_ns BIGINT: in the server, ns. NULL where it was not seen from there.
--   downstream_ns BIGINT: in which the serving thread waited for calls to others, ns. NULL where the server was not seen.
--   downstream_network_ns BIGINT: of downstream_ns what was spent on the way, ns. NULL where not known.
--   downstream_call_count BIGINT: those calls. NULL where the server was not seen.
--   slowest_callee VARCHAR: who took the most of downstream_ns. NULL without calls.
--   own_ns BIGINT: of server_ns what is left: computing, waiting for a CPU, for locks, for disks, ns. NULL where not known.
--   on_cpu_ns BIGINT: of own_ns and the calls: the serving thread was running, ns. NULL where the scheduler was not recorded.
--   run_queue_ns BIGINT: it waited for a CPU, ns. NULL as above.
--   lock_ns BIGINT: it waited for a lock or another thread, ns. NULL as above.
--   timer_ns BIGINT: it slept until a time of its own choice, ns. NULL as above.
--   disk_ns BIGINT: it waited for storage, ns. NULL as above.
--   unexplained_ns BIGINT: of server_ns what neither calls to others nor the parts above account for, ns. NULL as above.
WITH _interval AS (
    -- Calls of one thread follow each other; those of another thread on behalf of the request are not seen.
    SELECT c.parent_request_id, c.callee, c.latency_ns, k.network_ns,
        c.start_ns, c.start_ns + c.latency_ns AS end_ns,
        max(c.start_ns + c.latency_ns) OVER (PARTITION BY c.parent_request_id ORDER BY c.start_ns
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before_ns
    FROM child_call AS c
    LEFT JOIN call AS k ON k.client_request_id = c.request_id
    WHERE c.latency_ns IS NOT NULL
),
_part AS (
    SELECT *, greatest(0, end_ns - greatest(start_ns, coalesce(before_ns, start_ns))) AS waited_ns FROM _interval
),
_callee AS (
    SELECT parent_request_id, callee, sum(waited_ns) AS waited_ns, sum(network_ns) AS network_ns, count(*) AS calls
    FROM _part GROUP BY parent_request_id, callee
),
_down AS (
    SELECT parent_request_id, sum(waited_ns)::BIGINT AS downstream_ns, sum(network_ns)::BIGINT AS network_ns,
        sum(calls)::BIGINT AS calls, arg_max(callee, waited_ns) AS slowest_callee
    FROM _callee GROUP BY parent_request_id
),
_request AS (
    -- A server notes the end of its answer when it has handed it over: on one machine its caller may have it by then.
    SELECT *, CASE WHEN server_latency_ns > latency_ns THEN latency_ns ELSE server_latency_ns END AS in_server_ns FROM logical_request WHERE latency_ns IS NOT NULL
)
SELECT l.request_id, l.server_name AS server, l.latency_ns AS total_ns, l.latency_ns - l.in_server_ns - coalesce(l.proxy_ns, 0) AS network_ns,
    l.proxy_ns,
    l.in_server_ns AS server_ns,
    CASE WHEN l.in_server_ns IS NOT NULL THEN least(l.in_server_ns, coalesce(d.downstream_ns, 0)) END AS downstream_ns,
    d.network_ns AS downstream_network_ns,
    CASE WHEN l.in_server_ns IS NOT NULL THEN coalesce(d.calls, 0) END AS downstream_call_count, d.slowest_callee,
    l.in_server_ns - least(l.in_server_ns, coalesce(d.downstream_ns, 0)) AS own_ns,
    t.on_cpu_ns, t.run_queue_ns, t.lock_ns, t.timer_ns, t.disk_ns,
    -- Waits on sockets are the calls; computing within them (their preparation) is counted as computing.
    CASE WHEN t.request_id IS NOT NULL AND l.in_server_ns IS NOT NULL THEN
        greatest(0, l.in_server_ns - greatest(coalesce(d.downstream_ns, 0), t.socket_ns) - t.on_cpu_ns - t.run_queue_ns - t.lock_ns
        - t.timer_ns - t.disk_ns) END AS unexplained_ns
FROM _request AS l
LEFT JOIN _down AS d ON d.parent_request_id = l.server_request_id
LEFT JOIN request_thread_time AS t ON t.request_id = l.server_request_id
ORDER BY l.request_id
