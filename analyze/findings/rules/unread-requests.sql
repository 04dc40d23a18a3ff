-- Requests wait in the kernel of a server until its program reads them: it serves fewer at a time than it gets.
-- Inputs: call, request, logical_request, connection_health, tcp_sample, listener, connection
-- Kind: cause
-- Effect: slowness
WITH _call AS (
    SELECT l.client_name, l.server_name, l.protocol, l.server_pod, l.server_namespace, l.latency_ns, l.server_latency_ns, l.start_ns, s.connection_id,
        -- No more than the time outside of the server, whatever the clocks of two nodes say.
        greatest(0, least(c.network_ns, s.start_ns - coalesce(r.request_end_ns, r.start_ns)))::BIGINT AS wait_ns
    FROM call AS c
    JOIN logical_request AS l ON l.request_id = c.request_id
    JOIN request AS r ON r.request_id = c.client_request_id
    JOIN request AS s ON s.request_id = c.server_request_id
    WHERE c.network_ns IS NOT NULL AND c.proxy_count = 0 AND l.protocol NOT IN ('dns', 'mdns', 'llmnr', 'websocket', 'tls')
),
_rtt AS (
    -- What the way itself takes: acknowledgements may be late, the fastest are not.
    SELECT h.server_name, quantile_disc(coalesce(s.min_rtt_ns, s.srtt_ns), 0.5) AS rtt_ns
    FROM tcp_sample AS s JOIN connection_health AS h USING (connection_id) WHERE s.srtt_ns IS NOT NULL GROUP BY ALL
),
_server AS (
    SELECT server_name, protocol, count(*) AS calls, mode(client_name) AS client,
        count(*) FILTER (wait_ns >= 1000000 * getvariable('unread_ms')) AS waits,
        quantile_disc(wait_ns, 0.5) FILTER (wait_ns >= 1000000 * getvariable('unread_ms')) AS wait_p50_ns,
        quantile_disc(server_latency_ns, 0.5) AS server_p50_ns, sum(wait_ns)::BIGINT AS wait_ns, sum(latency_ns)::BIGINT AS total_ns,
        list(DISTINCT server_namespace || '/' || server_pod) FILTER (wait_ns >= 1000000 * getvariable('unread_ms')) AS pods,
        min(start_ns) FILTER (wait_ns >= 1000000 * getvariable('unread_ms')) AS first_ns, max(start_ns) AS last_ns
    FROM _call GROUP BY ALL
),
_queue AS (
    -- Connections that the kernel has made and the program has not taken yet.
    SELECT i.local_name AS server_name, max(l.backlog_count) AS waiting, arg_max(l.backlog_max, l.backlog_count) AS most
    FROM listener AS l
    JOIN (SELECT DISTINCT c.node, c.netns_id, c.local_port, h.local_name FROM connection AS c JOIN connection_health AS h USING (connection_id)
        WHERE c.side = 'server') AS i ON i.node = l.node AND i.netns_id = l.netns_id AND i.local_port = l.local_port
    WHERE l.transport = 'tcp' GROUP BY ALL
)
SELECT
    CASE WHEN s.wait_ns >= 0.5 * s.total_ns THEN 'critical' ELSE 'warning' END AS severity, 'workload' AS scope_kind, s.server_name AS scope,
    'Requests to ' || s.server_name || ' wait until it reads them: ' || as_ms(s.wait_p50_ns) || ' (p50), then it takes '
        || as_ms(s.server_p50_ns) || ' to answer (' || s.protocol || ')' AS title,
    s.waits || ' of ' || s.calls || ' calls lay in its socket that long, most of them from ' || s.client
        || coalesce('; up to ' || nullif(q.waiting, 0) || ' connections waited to be accepted (limit ' || q.most || ')', '')
        || coalesce('; the way there and back takes ' || as_ms(r.rtt_ns), '')
        || '. It serves fewer requests at a time than it gets: more workers, threads or replicas help, or shorter requests.' AS summary,
    'select * from call join logical_request using (request_id) where server_name = ''' || s.server_name || ''' order by network_ns desc' AS evidence,
    0.85 AS confidence, s.wait_ns AS impact_ns, s.first_ns, s.last_ns, [s.server_name] AS entities, s.pods AS about
FROM _server AS s LEFT JOIN _rtt AS r USING (server_name) LEFT JOIN _queue AS q USING (server_name)
WHERE s.waits >= 10 AND s.waits >= 0.3 * s.calls AND s.wait_ns >= 0.3 * s.total_ns
    -- A long way is another finding.
    AND coalesce(r.rtt_ns, 0) <= 0.25 * s.wait_p50_ns
