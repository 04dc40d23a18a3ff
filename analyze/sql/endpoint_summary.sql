-- One row: the golden signals of one operation on one resource of one server. Latency as in service_summary.
-- Inputs: logical_request, manifest_node
-- Columns:
--   server VARCHAR: the server.
--   protocol VARCHAR: protocol.
--   operation VARCHAR: operation. NULL when not seen.
--   resource VARCHAR: resource. NULL when none.
--   request_count BIGINT: requests.
--   rps DOUBLE: requests per second of the recording.
--   error_count BIGINT: failed requests, the caller's own faults left out.
--   client_error_count BIGINT: requests that failed by the caller's fault (4xx, NXDOMAIN, bad syntax).
--   error_ratio DOUBLE: error_count by request_count.
--   slow_count BIGINT: requests above the slow threshold of their protocol.
--   p50_ns BIGINT: median latency, ns. NULL when nothing was answered.
--   p90_ns BIGINT: 90th percentile, ns. NULL when nothing was answered.
--   p95_ns BIGINT: 95th percentile, ns. NULL when nothing was answered.
--   p99_ns BIGINT: 99th percentile, ns. NULL when nothing was answered.
--   max_ns BIGINT: longest, ns. NULL when nothing was answered.
--   request_bytes BIGINT: bytes of all requests.
--   response_bytes BIGINT: bytes of all responses.
WITH _request AS (
    SELECT *, coalesce(server_latency_ns, latency_ns) AS own_ns FROM logical_request WHERE outcome <> 'no_request'
)
SELECT server_name AS server, protocol, operation, resource,
    count(*) AS request_count,
    round(count(*) / greatest(1e-9, (SELECT max(duration_ns) FROM manifest_node) / 1e9), 3) AS rps,
    count(*) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS error_count,
    count(*) FILTER (is_error AND error_kind = 'client') AS client_error_count,
    count(*) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') / count(*) AS error_ratio,
    count(*) FILTER (is_slow) AS slow_count,
    quantile_disc(own_ns, 0.50) AS p50_ns,
    quantile_disc(own_ns, 0.90) AS p90_ns,
    quantile_disc(own_ns, 0.95) AS p95_ns,
    quantile_disc(own_ns, 0.99) AS p99_ns,
    max(own_ns) AS max_ns,
    coalesce(sum(request_bytes), 0)::BIGINT AS request_bytes,
    coalesce(sum(response_bytes), 0)::BIGINT AS response_bytes
FROM _request
GROUP BY server_name, protocol, operation, resource
ORDER BY request_count DESC, server, protocol, operation, resource
