-- Calls between two workloads are slow: where a user feels it, not necessarily where it comes from.
-- Inputs: edge, connection_health
-- Kind: consequence
SELECT
    'warning' AS severity, 'edge' AS scope_kind, client || ' -> ' || server AS scope,
    'Calls from ' || client || ' to ' || server || ' are slow: p95 ' || as_ms(p95_ns) || ' (' || protocol || ')' AS title,
    request_count || ' calls, p50 ' || as_ms(p50_ns) || ', p95 ' || as_ms(p95_ns)
        || coalesce('; in the server p95 ' || as_ms(server_p95_ns) || ', network and queues p95 '
            || as_ms(network_p95_ns), '; the server was not recorded' || coalesce(', the round trip to it takes ' || as_ms(r.rtt_ns)
            || CASE WHEN r.rtt_ns < 0.1 * p50_ns THEN ': the time is spent there' ELSE '' END, '')) || '.' AS summary,
    'select * from logical_request where client_name = ''' || client || ''' and server_name = ''' || server
        || ''' order by latency_ns desc' AS evidence,
    0.7 AS confidence, total_ns AS impact_ns, NULL::BIGINT AS first_ns, NULL::BIGINT AS last_ns, [client, server] AS entities
FROM edge LEFT JOIN (
    SELECT client_name AS client, server_name AS server, quantile_disc(rtt_p50_ns, 0.5) AS rtt_ns FROM connection_health
    WHERE is_client AND rtt_p50_ns IS NOT NULL GROUP BY ALL) AS r USING (client, server)
WHERE slow_count >= 3 AND slow_count / request_count >= 0.05 AND protocol NOT IN ('dns', 'mdns', 'llmnr', 'websocket', 'tls')
