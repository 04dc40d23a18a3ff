-- One row: one slow statement that ended when another connection's transaction ended: it waited for a lock of it. Statements
-- that change or lock rows wait for others of the kind, and any statement for one that locks its whole table.
-- Inputs: request, call, transaction
-- Columns:
--   request_id BIGINT: the statement that waited.
--   protocol VARCHAR: protocol.
--   client VARCHAR: who waited.
--   server VARCHAR: the database.
--   statement_pattern VARCHAR: pattern of the statement that waited.
--   start_ns BIGINT: start of the wait, ns since 1970.
--   wait_ns BIGINT: latency of the statement, ns.
--   holder_connection_id BIGINT: connection of the transaction that held the lock.
--   holder_client VARCHAR: who held it.
--   holder_write VARCHAR: pattern of the first write of the transaction that held it.
--   holder_idle_ns BIGINT: time that transaction did nothing, ns.
--   released_ns BIGINT: from the end of that transaction to the end of the statement, ns; negative: before.
WITH _slow AS (
    SELECT r.request_id, r.protocol, r.connection_id, r.client_name AS client, r.server_name AS server, r.server_ip,
        r.server_port, r.resource, r.start_ns, r.end_ns, r.latency_ns,
        regexp_matches(r.resource, '^(insert|update|delete|replace|merge)\b')
            OR regexp_matches(r.resource, '(for update|for share|lock in share mode)') AS is_write
    FROM call AS c
    JOIN request AS r ON r.request_id = coalesce(c.server_request_id, c.client_request_id)
    WHERE r.protocol IN ('mysql', 'postgresql', 'tds', 'tns') AND r.latency_ns >= 10000000
)
SELECT s.request_id, s.protocol, s.client, s.server, s.resource AS statement_pattern, s.start_ns, s.latency_ns AS wait_ns,
    t.connection_id AS holder_connection_id, t.client AS holder_client, t.first_write AS holder_write,
    t.idle_ns AS holder_idle_ns, s.end_ns - t.end_ns AS released_ns
FROM _slow AS s
JOIN transaction AS t
    -- It was open when the wait began, had written, and its end woke the waiter.
    ON t.server_ip = s.server_ip AND t.server_port = s.server_port AND t.connection_id <> s.connection_id
    AND t.write_count > 0 AND (s.is_write OR regexp_matches(s.resource, '\b' || regexp_escape(t.locked_table) || '\b'))
    AND t.start_ns < s.end_ns - s.latency_ns // 2 AND t.ending <> 'open'
    AND s.end_ns BETWEEN t.end_ns - 5000000 AND t.end_ns + 5000000
QUALIFY row_number() OVER (PARTITION BY s.request_id ORDER BY abs(s.end_ns - t.end_ns)) = 1
ORDER BY s.start_ns
