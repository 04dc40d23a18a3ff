-- One row: one transaction of several statements on one database connection.
-- Inputs: request, call
-- Columns:
--   connection_id BIGINT: the connection, seen from the server where that was recorded.
--   number BIGINT: counts the transactions of the connection from 0.
--   protocol VARCHAR: protocol.
--   client VARCHAR: what reports call the caller.
--   server VARCHAR: what reports call the database.
--   server_ip VARCHAR: address of the database.
--   server_port INTEGER: port of the database.
--   start_ns BIGINT: start of its first statement, ns since 1970.
--   end_ns BIGINT: end of its COMMIT or ROLLBACK, ns since 1970; of an open one end of its last statement.
--   duration_ns BIGINT: from start to end, ns.
--   busy_ns BIGINT: time in which a statement ran, ns.
--   idle_ns BIGINT: time between statements, ns: the application kept the transaction waiting.
--   statement_count BIGINT: statements, BEGIN and COMMIT left out.
--   write_count BIGINT: statements that change rows or lock them, or lock a whole table.
--   locked_table VARCHAR: the table that a statement of it locks as a whole (ALTER, TRUNCATE, LOCK ...). NULL without any.
--   ending VARCHAR: commit, rollback or open.
--   first_write VARCHAR: pattern of its first statement that changes or locks. NULL without any.
WITH _all AS (
    SELECT r.connection_id, r.protocol, r.client_name AS client, r.server_name AS server, r.server_ip, r.server_port, r.start_ns,
        coalesce(r.end_ns, r.start_ns) AS end_ns, coalesce(r.latency_ns, 0) AS latency_ns, r.resource,
        regexp_matches(r.resource, '^(begin|start transaction)') AS is_begin,
        regexp_matches(r.resource, '^(commit|rollback|end|abort)\b') AND NOT regexp_matches(r.resource, '^rollback to')
            AS is_end,
        regexp_matches(r.resource, '^(insert|update|delete|replace|merge)\b')
            OR regexp_matches(r.resource, '(for update|for share|lock in share mode)') AS is_row_write,
        -- MySQL and Oracle commit before and after such a statement: it holds nothing afterwards.
        CASE WHEN r.protocol IN ('postgresql', 'tds') THEN nullif(regexp_extract(r.resource,
            '^(?:alter table|drop table|truncate(?: table)?|lock(?: table)?|reindex table|cluster|create(?: unique)? index .*? on)(?: if exists| only)* ([a-z0-9_."]+)', 1), '') END AS locked_table
    FROM call AS c
    JOIN request AS r ON r.request_id = coalesce(c.server_request_id, c.client_request_id)
    WHERE r.protocol IN ('mysql', 'postgresql', 'tds', 'tns') AND r.resource IS NOT NULL AND r.outcome <> 'no_request'
        AND r.operation IN ('COM_QUERY', 'COM_STMT_EXECUTE', 'Query', 'Execute', 'SQLBatch', 'RPC', 'OALL8')
),
_statement AS (
    SELECT *, is_row_write OR locked_table IS NOT NULL AS is_write FROM _all
),
_numbered AS (
    SELECT *, coalesce(sum(is_end::INTEGER) OVER (
        PARTITION BY connection_id ORDER BY start_ns ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::BIGINT AS number
    FROM _statement
),
_begun AS (
    -- Statements before an explicit BEGIN commit by themselves.
    SELECT *, max(start_ns) FILTER (is_begin) OVER (PARTITION BY connection_id, number) AS begin_ns,
        bool_or(is_end) OVER (PARTITION BY connection_id, number) AS has_end
    FROM _numbered
)
SELECT connection_id, number, any_value(protocol) AS protocol, any_value(client) AS client, any_value(server) AS server,
    any_value(server_ip) AS server_ip, any_value(server_port) AS server_port, min(start_ns) AS start_ns,
    max(end_ns) AS end_ns, max(end_ns) - min(start_ns) AS duration_ns, sum(latency_ns)::BIGINT AS busy_ns,
    greatest(0, max(end_ns) - min(start_ns) - sum(latency_ns))::BIGINT AS idle_ns,
    count(*) FILTER (NOT is_begin AND NOT is_end) AS statement_count, count(*) FILTER (is_write) AS write_count,
    arg_min(locked_table, start_ns) AS locked_table,
    CASE WHEN NOT bool_or(has_end) THEN 'open' WHEN bool_or(is_end AND resource LIKE 'rollback%') THEN 'rollback' ELSE 'commit'
        END AS ending,
    arg_min(resource, start_ns) FILTER (is_write) AS first_write
FROM _begun
WHERE (begin_ns IS NOT NULL OR has_end) AND (begin_ns IS NULL OR start_ns >= begin_ns)
GROUP BY connection_id, number
HAVING count(*) FILTER (NOT is_begin AND NOT is_end) > 0
ORDER BY connection_id, number
