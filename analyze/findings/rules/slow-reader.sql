-- A program does not read what it is sent as fast as it comes: its peer has to wait, whatever the network.
-- Inputs: tcp_sample, tcp_event, connection_health, edge
-- Kind: cause
-- Effect: slowness
WITH _sample AS (
    SELECT connection_id, count(*) AS samples, count(*) FILTER (receive_queue_bytes >= 1024 * getvariable('unread_kib')) AS full,
        max(receive_queue_bytes) AS most_bytes, min(realtime_ns(node, ts_ns)) AS first_ns, max(realtime_ns(node, ts_ns)) AS last_ns
    FROM tcp_sample WHERE direction IS DISTINCT FROM 'send' GROUP BY connection_id
),
_closed AS (SELECT connection_id, count(*) AS closed FROM tcp_event WHERE kind = 'zero_window' GROUP BY connection_id),
_end AS (
    SELECT h.local_name AS reader, h.remote_name AS writer, h.client_name, h.server_name, s.most_bytes, coalesce(c.closed, 0) AS closed,
        s.first_ns, s.last_ns, (s.last_ns - s.first_ns) * s.full / s.samples AS full_ns
    FROM _sample AS s JOIN connection_health AS h USING (connection_id) LEFT JOIN _closed AS c USING (connection_id)
    -- For seconds, not between two reads.
    WHERE s.full >= 3 AND s.full >= 0.5 * s.samples
)
SELECT
    -- Who reads slowly on purpose holds nobody up but its own answers.
    CASE WHEN coalesce(any_value(e.slow_count), 0) >= 3 THEN 'warning' ELSE 'notice' END AS severity, 'edge' AS scope_kind,
    _end.client_name || ' -> ' || _end.server_name AS scope,
    reader || ' does not read what ' || writer || ' sends it: up to ' || max(most_bytes) // 1024 || ' KiB lie unread' AS title,
    count(*) || ' connections had their receive queue full in half of the samples or more'
        || CASE WHEN sum(closed) > 0 THEN ', and said so ' || sum(closed)::BIGINT || ' times (window zero)' ELSE '' END
        || '. The network and ' || writer || ' are not what is slow.' AS summary,
    'select * from tcp_sample where receive_queue_bytes > 0 order by receive_queue_bytes desc' AS evidence, 0.85 AS confidence,
    sum(full_ns)::BIGINT AS impact_ns, min(_end.first_ns) AS first_ns, max(_end.last_ns) AS last_ns, [reader, writer] AS entities
FROM _end LEFT JOIN (SELECT client, server, sum(slow_count) AS slow_count FROM edge GROUP BY ALL) AS e
    ON e.client = _end.client_name AND e.server = _end.server_name
GROUP BY reader, writer, _end.client_name, _end.server_name
