-- One row: one request counted once, whichever sides saw it; what the golden signals are made of.
-- Inputs: call, request, connection_identity
-- Columns:
--   request_id BIGINT: the client's row where there is one, else the server's or the wire's.
--   server_request_id BIGINT: the server's row. NULL when not seen from there.
--   start_ns BIGINT: start, ns since 1970.
--   protocol VARCHAR: protocol.
--   operation VARCHAR: operation. NULL when not seen.
--   resource VARCHAR: resource. NULL when none.
--   statement VARCHAR: statement. NULL when none.
--   status VARCHAR: status. NULL when no response was seen.
--   is_error BOOLEAN: it failed.
--   error_kind VARCHAR: whose fault. NULL when it did not fail.
--   error_message VARCHAR: what the server said. NULL when nothing.
--   outcome VARCHAR: complete, one_way, no_response, no_request or truncated.
--   latency_ns BIGINT: latency as the caller saw it, else as the server did. NULL when unanswered.
--   ttfb_ns BIGINT: time to the first byte of the response, as latency_ns. NULL when unanswered.
--   server_latency_ns BIGINT: latency as the server saw it. NULL when not seen from there.
--   network_ns BIGINT: caller's latency less the server's and the sidecars' (call.network_ns). NULL unless both are known.
--   proxy_count BIGINT: sidecar proxies it came through.
--   proxy_ns BIGINT: time in them, ns. NULL without, or when not known.
--   is_slow BOOLEAN: above the slow threshold of its protocol.
--   request_bytes BIGINT: bytes of the request. NULL when not seen.
--   response_bytes BIGINT: bytes of the response. NULL when not seen.
--   rows_sent BIGINT: rows of the result. NULL when the protocol has none.
--   rows_affected BIGINT: rows changed. NULL when the protocol has none.
--   lost_bytes BIGINT: bytes of it that the recording does not have.
--   client_name VARCHAR: the client.
--   client_namespace VARCHAR: its namespace. NULL when it is no pod.
--   client_workload VARCHAR: its workload. NULL when it is no pod.
--   client_pod VARCHAR: its pod. NULL when it is no pod.
--   client_container VARCHAR: its container. NULL when it is none, or not known which of its pod's.
--   client_node VARCHAR: its node. NULL when not known.
--   server_name VARCHAR: the server.
--   server_namespace VARCHAR: its namespace. NULL when it is no pod.
--   server_workload VARCHAR: its workload. NULL when it is no pod.
--   server_pod VARCHAR: its pod. NULL when it is no pod.
--   server_container VARCHAR: its container. NULL when it is none, or not known which of its pod's.
--   server_node VARCHAR: its node. NULL when not known.
--   server_version VARCHAR: its version. NULL when not known.
--   server_service VARCHAR: service called. NULL when none is known.
--   server_ip VARCHAR: address of the server.
--   server_port INTEGER: port of the server.
SELECT
    c.request_id, c.server_request_id, r.start_ns, r.protocol, r.operation, r.resource, r.statement, r.status,
    r.is_error, r.error_kind, r.error_message, r.outcome,
    coalesce(c.client_latency_ns, c.server_latency_ns) AS latency_ns,
    r.ttfb_ns, c.server_latency_ns, c.network_ns, c.proxy_count, c.proxy_ns,
    -- A subscription, a long poll or a stream lasts as long as it is wanted: only what answers is slow or fast.
    coalesce(coalesce(c.client_latency_ns, c.server_latency_ns) > 1000000 * CASE
        WHEN r.protocol IN ('mysql', 'postgresql', 'tds', 'clickhouse', 'tns', 'cassandra', 'mongodb')
            THEN getvariable('slow_sql_ms')
        WHEN r.protocol IN ('dns', 'mdns', 'llmnr') THEN getvariable('slow_dns_ms')
        WHEN r.protocol IN ('redis', 'memcached') THEN getvariable('slow_cache_ms')
        ELSE getvariable('slow_call_ms') END, false) AS is_slow,
    r.request_bytes, r.response_bytes, r.rows_sent, r.rows_affected, r.lost_bytes,
    coalesce(y.remote_name, r.client_name) AS client_name,
    CASE WHEN y.connection_id IS NULL THEN r.client_namespace ELSE y.remote_namespace END AS client_namespace,
    CASE WHEN y.connection_id IS NULL THEN r.client_workload ELSE y.remote_workload END AS client_workload,
    CASE WHEN y.connection_id IS NULL THEN r.client_pod ELSE y.remote_pod END AS client_pod,
    -- Which of its pod's containers called its sidecar is not known from here.
    CASE WHEN y.connection_id IS NULL THEN r.client_container END AS client_container,
    CASE WHEN y.connection_id IS NULL THEN r.client_node ELSE y.remote_node END AS client_node,
    coalesce(x.remote_name, s.server_name, r.server_name) AS server_name,
    coalesce(x.remote_namespace, s.server_namespace, r.server_namespace) AS server_namespace,
    coalesce(x.remote_workload, s.server_workload, r.server_workload) AS server_workload,
    coalesce(x.remote_pod, s.server_pod, r.server_pod) AS server_pod,
    CASE WHEN x.connection_id IS NULL THEN coalesce(s.server_container, r.server_container) END AS server_container,
    coalesce(x.remote_node, s.server_node, r.server_node) AS server_node,
    coalesce(x.remote_version, s.server_version, r.server_version) AS server_version,
    coalesce(r.server_service, s.server_service) AS server_service,
    coalesce(s.server_ip, r.server_ip) AS server_ip, coalesce(s.server_port, r.server_port) AS server_port
FROM call AS c
JOIN request AS r USING (request_id)
LEFT JOIN request AS s ON s.request_id = c.callee_request_id
LEFT JOIN connection_identity AS x ON x.connection_id = c.callee_connection_id
LEFT JOIN connection_identity AS y ON y.connection_id = c.caller_connection_id
ORDER BY r.start_ns, c.request_id
