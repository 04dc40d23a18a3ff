-- One row: the calls of one client to one server in one protocol; latency as the caller saw it.
-- Inputs: logical_request, manifest_node
-- Columns:
--   client VARCHAR: the client.
--   server VARCHAR: the server.
--   protocol VARCHAR: protocol.
--   client_namespace VARCHAR: namespace of the client. NULL when it is no pod.
--   server_namespace VARCHAR: namespace of the server. NULL when it is no pod.
--   client_container VARCHAR: containers of the client, by name, a space between. NULL when none is known.
--   server_container VARCHAR: containers of the server, by name, a space between. NULL when none is known.
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
--   total_ns BIGINT: sum of the latencies, ns.
--   server_p50_ns BIGINT: median of the server's own latency, ns. NULL when not seen from there.
--   server_p95_ns BIGINT: its 95th percentile, ns. NULL when not seen from there.
--   server_total_ns BIGINT: sum of the server's own latencies, ns. NULL when not seen from there.
--   network_p50_ns BIGINT: median of network_ns, ns. NULL when not seen from both sides.
--   network_p95_ns BIGINT: its 95th percentile, ns. NULL when not seen from both sides.
--   network_total_ns BIGINT: sum of network_ns, ns. NULL when not seen from both sides.
--   joined_count BIGINT: requests seen from both sides.
--   proxied_count BIGINT: requests that came through sidecar proxies.
--   proxy_p50_ns BIGINT: median of the time in them, ns. NULL when not known.
--   proxy_p95_ns BIGINT: its 95th percentile, ns. NULL when not known.
--   proxy_total_ns BIGINT: sum of the time in them, ns. NULL when not known.
SELECT client_name AS client, server_name AS server, protocol,
    any_value(client_namespace) AS client_namespace, any_value(server_namespace) AS server_namespace,
    string_agg(DISTINCT client_container, ' ' ORDER BY client_container) AS client_container,
    string_agg(DISTINCT server_container, ' ' ORDER BY server_container) AS server_container,
    count(*) AS request_count,
    round(count(*) / greatest(1e-9, (SELECT max(duration_ns) FROM manifest_node) / 1e9), 3) AS rps,
    count(*) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS error_count,
    count(*) FILTER (is_error AND error_kind = 'client') AS client_error_count,
    count(*) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') / count(*) AS error_ratio,
    count(*) FILTER (is_slow) AS slow_count,
    quantile_disc(latency_ns, 0.50) AS p50_ns,
    quantile_disc(latency_ns, 0.90) AS p90_ns,
    quantile_disc(latency_ns, 0.95) AS p95_ns,
    quantile_disc(latency_ns, 0.99) AS p99_ns,
    max(latency_ns) AS max_ns,
    coalesce(sum(request_bytes), 0)::BIGINT AS request_bytes,
    coalesce(sum(response_bytes), 0)::BIGINT AS response_bytes,
    coalesce(sum(latency_ns), 0)::BIGINT AS total_ns,
    quantile_disc(server_latency_ns, 0.50) AS server_p50_ns,
    quantile_disc(server_latency_ns, 0.95) AS server_p95_ns,
    sum(server_latency_ns)::BIGINT AS server_total_ns,
    quantile_disc(network_ns, 0.50) AS network_p50_ns,
    quantile_disc(network_ns, 0.95) AS network_p95_ns,
    sum(network_ns)::BIGINT AS network_total_ns,
    count(network_ns) AS joined_count,
    count(*) FILTER (proxy_count > 0) AS proxied_count,
    quantile_disc(proxy_ns, 0.50) AS proxy_p50_ns,
    quantile_disc(proxy_ns, 0.95) AS proxy_p95_ns,
    sum(proxy_ns)::BIGINT AS proxy_total_ns
FROM logical_request
WHERE outcome <> 'no_request'
GROUP BY client_name, server_name, protocol
ORDER BY total_ns DESC, client, server, protocol
