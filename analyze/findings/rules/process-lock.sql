-- Requests wait for a lock inside of the process that serves them, or for another of its threads.
-- Inputs: logical_request, request_thread_time
-- Kind: consequence
WITH _server AS (
    SELECT l.server_name, l.protocol, count(*) AS requests, quantile_disc(t.lock_ns, 0.5) AS p50_ns, quantile_disc(t.lock_ns, 0.95) AS p95_ns,
        count(*) FILTER (t.lock_ns >= 1000000 * getvariable('process_lock_ms') AND t.lock_ns >= 0.3 * t.thread_ns) AS hits,
        sum(t.lock_ns)::BIGINT AS lock_ns, sum(t.thread_ns)::BIGINT AS thread_ns, min(l.start_ns) AS first_ns, max(l.start_ns) AS last_ns
    FROM logical_request AS l LEFT JOIN request_thread_time AS t ON t.request_id = l.server_request_id
    WHERE l.server_request_id IS NOT NULL
    GROUP BY ALL
    -- Where other threads answer than took the request, sleeping is what the taker does meanwhile.
    HAVING count(t.request_id) >= 0.8 * count(*)
)
SELECT
    'warning' AS severity, 'workload' AS scope_kind, server_name AS scope,
    'Requests to ' || server_name || ' wait inside of it for a lock or another thread: ' || hits || ' of ' || requests || ', p95 '
        || as_ms(p95_ns) || ' (' || protocol || ')' AS title,
    'Of the time of the threads that serve them ' || round(100.0 * lock_ns / thread_ns)
        || ' % is sleep until another thread of the process wakes them (futex); p50 ' || as_ms(p50_ns)
        || '. More replicas or faster databases do not shorten it.' AS summary,
    'select * from request_time_split where server = ''' || server_name || ''' order by lock_ns desc' AS evidence,
    0.75 AS confidence, lock_ns AS impact_ns, first_ns, last_ns, [server_name] AS entities
FROM _server
WHERE hits >= 10 AND hits >= 0.1 * requests AND lock_ns >= 0.2 * thread_ns
