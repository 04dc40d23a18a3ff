-- Calls between two workloads are slow: where a user feels it, not necessarily where it comes from.
-- Inputs: edge
-- Kind: consequence
SELECT
    'warning' AS severity, 'edge' AS scope_kind, client || ' -> ' || server AS scope,
    'Calls from ' || client || ' to ' || server || ' are slow: p95 ' || round(p95_ns / 1e6) || ' ms (' || protocol || ')' AS title,
    request_count || ' calls, p50 ' || round(p50_ns / 1e6, 1) || ' ms, p95 ' || round(p95_ns / 1e6, 1) || ' ms'
        || coalesce('; in the server p95 ' || round(server_p95_ns / 1e6, 1) || ' ms, network and queues p95 '
            || round(network_p95_ns / 1e6, 1) || ' ms', '') || '.' AS summary,
    'select * from logical_request where client_name = ''' || client || ''' and server_name = ''' || server
        || ''' order by latency_ns desc' AS evidence,
    0.7 AS confidence, total_ns AS impact_ns, NULL::BIGINT AS first_ns, NULL::BIGINT AS last_ns, [client, server] AS entities
FROM edge
WHERE slow_count >= 3 AND slow_count / request_count >= 0.05 AND protocol NOT IN ('dns', 'mdns', 'llmnr', 'websocket', 'tls')
