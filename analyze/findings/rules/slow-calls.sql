-- Calls between two workloads are slow: where a user feels it, not necessarily where it comes from.
-- Inputs: edge
-- Kind: consequence
SELECT
    'warning' AS severity, 'edge' AS scope_kind, client || ' -> ' || server AS scope,
    'Calls from ' || client || ' to ' || server || ' are slow: p95 ' || as_ms(p95_ns) || ' (' || protocol || ')' AS title,
    request_count || ' calls, p50 ' || as_ms(p50_ns) || ', p95 ' || as_ms(p95_ns)
        || coalesce('; in the server p95 ' || as_ms(server_p95_ns) || ', network and queues p95 '
            || as_ms(network_p95_ns), '') || '.' AS summary,
    'select * from logical_request where client_name = ''' || client || ''' and server_name = ''' || server
        || ''' order by latency_ns desc' AS evidence,
    0.7 AS confidence, total_ns AS impact_ns, NULL::BIGINT AS first_ns, NULL::BIGINT AS last_ns, [client, server] AS entities
FROM edge
WHERE slow_count >= 3 AND slow_count / request_count >= 0.05 AND protocol NOT IN ('dns', 'mdns', 'llmnr', 'websocket', 'tls')
