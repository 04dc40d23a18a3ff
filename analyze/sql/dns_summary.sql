-- One row: look-ups of one name and type by one client.
-- Inputs: logical_request
-- Columns:
--   client VARCHAR: who asks.
--   server VARCHAR: who is asked.
--   name VARCHAR: the name. NULL when the question was not seen.
--   type VARCHAR: record type. NULL when the question was not seen.
--   query_count BIGINT: questions.
--   nxdomain_count BIGINT: answers that the name does not exist.
--   error_count BIGINT: answers with any other error.
--   unanswered_count BIGINT: questions without an answer.
--   slow_count BIGINT: answers above the slow threshold.
--   p50_ns BIGINT: median latency, ns. NULL when nothing was answered.
--   p95_ns BIGINT: 95th percentile, ns. NULL when nothing was answered.
--   max_ns BIGINT: longest, ns. NULL when nothing was answered.
SELECT client_name AS client, server_name AS server, resource AS name, operation AS type, count(*) AS query_count,
    count(*) FILTER (status = 'NXDOMAIN') AS nxdomain_count,
    count(*) FILTER (status NOT IN ('NOERROR', 'NXDOMAIN')) AS error_count,
    count(*) FILTER (outcome = 'no_response') AS unanswered_count, count(*) FILTER (is_slow) AS slow_count,
    quantile_disc(latency_ns, 0.50) AS p50_ns, quantile_disc(latency_ns, 0.95) AS p95_ns, max(latency_ns) AS max_ns
FROM logical_request
WHERE protocol = 'dns' AND outcome <> 'no_request'
GROUP BY ALL
ORDER BY query_count DESC, client, server, name, type
