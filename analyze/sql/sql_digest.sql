-- One row: one normalised statement of one server.
-- Inputs: logical_request
-- Columns:
--   protocol VARCHAR: mysql, postgresql, ...
--   server VARCHAR: the server.
--   digest VARCHAR: 16 hexadecimal digits that stand for the pattern.
--   statement_pattern VARCHAR: the statement with its values replaced.
--   example VARCHAR: the slowest statement of the pattern, as seen.
--   call_count BIGINT: executions.
--   error_count BIGINT: failed executions, of any kind.
--   total_ns BIGINT: sum of latencies, ns.
--   p50_ns BIGINT: median latency, ns. NULL when nothing was answered.
--   p90_ns BIGINT: 90th percentile, ns. NULL when nothing was answered.
--   p95_ns BIGINT: 95th percentile, ns. NULL when nothing was answered.
--   p99_ns BIGINT: 99th percentile, ns. NULL when nothing was answered.
--   max_ns BIGINT: longest, ns. NULL when nothing was answered.
--   server_p95_ns BIGINT: 95th percentile of the server's own latency, ns. NULL when not seen from there.
--   ttfb_p95_ns BIGINT: 95th percentile of the time to the first byte, ns. NULL when nothing was answered.
--   rows_sent BIGINT: rows returned. NULL when the protocol does not tell.
--   rows_affected BIGINT: rows changed. NULL when the protocol does not tell.
--   response_bytes BIGINT: bytes of all responses.
--   callers VARCHAR: who calls it and how often, the most frequent first.
--   first_ns BIGINT: first execution, ns since 1970.
--   last_ns BIGINT: last execution, ns since 1970.
WITH _statement AS (
    SELECT * FROM logical_request
    WHERE protocol IN ('mysql', 'postgresql', 'tds', 'clickhouse', 'cassandra', 'tns') AND resource IS NOT NULL
        AND operation IN ('COM_QUERY', 'COM_STMT_EXECUTE', 'Query', 'Execute', 'SQLBatch', 'RPC', 'QUERY', 'EXECUTE', 'BATCH')
        AND outcome <> 'no_request'
),
_caller AS (
    SELECT protocol, server_name, resource, client_name, count(*) AS calls FROM _statement GROUP BY ALL
),
_callers AS (
    SELECT protocol, server_name, resource,
        string_agg(client_name || ' (' || calls || ')', ', ' ORDER BY calls DESC, client_name) AS callers
    FROM _caller GROUP BY ALL
)
SELECT s.protocol, s.server_name AS server, left(md5(s.resource), 16) AS digest, s.resource AS statement_pattern,
    arg_max(s.statement, coalesce(s.latency_ns, 0)) AS example, count(*) AS call_count,
    count(*) FILTER (s.is_error) AS error_count, coalesce(sum(s.latency_ns), 0)::BIGINT AS total_ns,
    quantile_disc(s.latency_ns, 0.50) AS p50_ns, quantile_disc(s.latency_ns, 0.90) AS p90_ns,
    quantile_disc(s.latency_ns, 0.95) AS p95_ns, quantile_disc(s.latency_ns, 0.99) AS p99_ns,
    max(s.latency_ns) AS max_ns, quantile_disc(s.server_latency_ns, 0.95) AS server_p95_ns,
    quantile_disc(s.ttfb_ns, 0.95) AS ttfb_p95_ns, sum(s.rows_sent)::BIGINT AS rows_sent,
    sum(s.rows_affected)::BIGINT AS rows_affected, coalesce(sum(s.response_bytes), 0)::BIGINT AS response_bytes,
    any_value(c.callers) AS callers, min(s.start_ns) AS first_ns, max(s.start_ns) AS last_ns
FROM _statement AS s
JOIN _callers AS c USING (protocol, server_name, resource)
GROUP BY s.protocol, s.server_name, s.resource
ORDER BY total_ns DESC, statement_pattern
