-- One row: the golden signals of one server as one entity: a workload, service, pod, node or namespace. Latency is the
-- server's own where it was seen from there, else the callers'.
-- Inputs: logical_request, manifest_node
-- Columns:
--   dimension VARCHAR: namespace, node, workload, service, pod or address.
--   name VARCHAR: its name (workload and service with namespace).
--   protocol VARCHAR: protocol.
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
--   caller_p95_ns BIGINT: 95th percentile of the latency as callers saw it, ns. NULL when nothing was answered.
WITH _request AS (
    SELECT *, coalesce(server_latency_ns, latency_ns) AS own_ns FROM logical_request WHERE outcome <> 'no_request'
),
_entity AS (
    SELECT 'workload' AS dimension, server_name AS name, * FROM _request
    UNION ALL
    SELECT 'service', coalesce(server_namespace || '/', '') || server_service, * FROM _request WHERE server_service IS NOT NULL
    UNION ALL
    SELECT 'pod', coalesce(server_namespace || '/', '') || server_pod, * FROM _request WHERE server_pod IS NOT NULL
    UNION ALL
    SELECT 'node', server_node, * FROM _request WHERE server_node IS NOT NULL
    UNION ALL
    SELECT 'namespace', server_namespace, * FROM _request WHERE server_namespace IS NOT NULL
    UNION ALL
    SELECT 'address', server_ip || ':' || server_port, * FROM _request
)
SELECT dimension, name, protocol,
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
    coalesce(sum(response_bytes), 0)::BIGINT AS response_bytes,
    quantile_disc(latency_ns, 0.95) AS caller_p95_ns
FROM _entity
GROUP BY dimension, name, protocol
ORDER BY dimension, name, protocol
