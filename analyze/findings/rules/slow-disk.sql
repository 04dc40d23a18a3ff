-- Requests wait for storage, or a disk takes long for everything.
-- Inputs: disk_sample, logical_request, request_thread_time
-- Kind: root
-- Effect: slowness
WITH _device AS (
    SELECT node, device, max(read_count + write_count) - min(read_count + write_count) AS operations,
        max(read_time_ns + write_time_ns) - min(read_time_ns + write_time_ns) AS time_ns, max(busy_ns) - min(busy_ns) AS busy_ns,
        max(ts_ns) - min(ts_ns) AS span_ns
    FROM disk_sample GROUP BY node, device
),
_slow_device AS (
    SELECT node, arg_max(device, busy_ns) AS device, max(time_ns / operations) FILTER (operations > 0) AS await_ns,
        arg_max(operations, busy_ns) AS operations, arg_max(busy_ns / span_ns, busy_ns) AS busy
    FROM _device
    WHERE span_ns > 0 AND operations >= 20 AND time_ns / operations >= 1000000 * getvariable('slow_disk_ms') AND busy_ns >= 0.2 * span_ns
    GROUP BY node
),
_waited AS (
    SELECT l.server_name, l.server_node, l.resource, l.protocol, l.start_ns, l.server_latency_ns, t.disk_ns, t.lock_ns,
        t.disk_ns >= 1000000 * getvariable('slow_disk_ms') AND t.disk_ns >= 0.3 * t.thread_ns AS is_hit
    FROM logical_request AS l JOIN request_thread_time AS t ON t.request_id = l.server_request_id
),
_operation AS (
    SELECT server_name, protocol, resource, mode(server_node) AS node, count(*) AS requests, count(*) FILTER (is_hit) AS hits,
        -- Several commits at a time: one thread waits for the disk, the others for that thread.
        CASE WHEN count(*) FILTER (is_hit) >= 3 THEN sum(disk_ns + lock_ns) ELSE 0 END AS waited_ns,
        quantile_disc(disk_ns + lock_ns, 0.95) AS p95_ns, sum(server_latency_ns) AS total_ns, min(start_ns) AS first_ns, max(start_ns) AS last_ns
    FROM _waited GROUP BY ALL
),
_server AS (
    SELECT server_name, mode(node) AS node, sum(requests)::BIGINT AS requests, sum(hits)::BIGINT AS hits,
        max(p95_ns) FILTER (waited_ns > 0) AS p95_ns, sum(waited_ns)::BIGINT AS disk_ns, sum(total_ns)::BIGINT AS total_ns,
        arg_max(resource, waited_ns) AS what,
        list(DISTINCT left(md5(resource), 16)) FILTER (resource IS NOT NULL AND waited_ns >= 0.3 * total_ns) AS digests,
        min(first_ns) FILTER (waited_ns > 0) AS first_ns, max(last_ns) FILTER (waited_ns > 0) AS last_ns
    FROM _operation GROUP BY server_name
    HAVING sum(hits) >= 5 AND sum(waited_ns) >= 0.2 * sum(total_ns)
)
SELECT
    CASE WHEN s.disk_ns >= 0.5 * s.total_ns THEN 'critical' ELSE 'warning' END AS severity, 'workload' AS scope_kind, s.server_name AS scope,
    s.server_name || ' waits for its disk: ' || s.hits || ' of ' || s.requests || ' requests slept for storage, p95 ' || as_ms(s.p95_ns) AS title,
    'Most often: ' || shortened(coalesce(s.what, '?'), 120) || '. Of the time in the server ' || round(100.0 * s.disk_ns / s.total_ns)
        || ' % went into waiting for storage, or for a thread that does.'
        || coalesce(' Device ' || d.device || ' of ' || d.node || ' takes ' || as_ms(d.await_ns::BIGINT) || ' for each of '
            || d.operations || ' operations.', ' The devices themselves answer faster: a limit on the container, or their journal.') AS summary,
    'select * from request_time_split where server = ''' || s.server_name || ''' order by disk_ns desc' AS evidence,
    0.95 AS confidence, s.disk_ns AS impact_ns, s.first_ns, s.last_ns, [s.server_name] AS entities, coalesce(s.digests, []) AS explains
FROM _server AS s LEFT JOIN _slow_device AS d ON d.node = s.node
UNION ALL
SELECT
    -- Slow for whom? Where no request was seen to wait, it is worth a line, no more.
    'notice', 'node', d.node, 'Disk ' || d.device || ' of node ' || d.node || ' is slow: ' || as_ms(d.await_ns::BIGINT) || ' for each of '
        || d.operations || ' operations', 'It was busy ' || round(100 * d.busy) || ' % of the time.',
    'select * from disk_sample where device = ''' || d.device || '''', 0.8, (d.await_ns * d.operations)::BIGINT, NULL, NULL, [d.node], []
FROM _slow_device AS d WHERE d.node NOT IN (SELECT node FROM _server WHERE node IS NOT NULL)
