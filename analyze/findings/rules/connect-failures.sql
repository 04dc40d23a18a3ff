-- Connections cannot be made.
-- Inputs: connection_health, tcp_event, connection, listener, connection_identity, k8s_service, k8s_endpoint, logical_request
-- Kind: cause
-- Effect: failure
WITH _try AS (
    SELECT h.client_name, h.server_name, e.detail, realtime_ns(e.node, e.ts_ns) AS at_ns, e.duration_ns, coalesce(e.remote_ip, CASE WHEN c.side <> 'server' THEN c.remote_ip END) AS remote_ip,
        coalesce(e.remote_port, CASE WHEN c.side <> 'server' THEN c.remote_port END) AS remote_port,
        -- The kernel gives a local port before it sends anything: without one it had none to give.
        CASE WHEN e.detail <> 'ok' AND c.local_port = 0 THEN 'no local port' WHEN e.detail <> 'ok' THEN e.detail END AS why
    FROM tcp_event AS e JOIN connection_health AS h USING (connection_id) JOIN connection AS c USING (connection_id)
    WHERE e.kind = 'connect'
),
_listens AS (
    -- Ports somebody was reached at, or that were open, of servers that were recorded.
    SELECT i.local_name AS name, list_sort(list(DISTINCT l.local_port)) AS ports
    FROM listener AS l
    JOIN (SELECT DISTINCT c.node, c.netns_id, i.local_name FROM connection AS c JOIN connection_identity AS i USING (connection_id)
        WHERE i.local_pod IS NOT NULL) AS i USING (node, netns_id)
    WHERE l.transport = 'tcp' AND l.local_ip NOT LIKE '127.%' AND l.local_ip <> '::1' GROUP BY ALL
),
_empty AS (
    -- Services that choose pods, and have none to send anybody to.
    SELECT s.namespace || '/' || s.name AS service, unnest(string_split(s.cluster_ips, ' ')) AS ip
    FROM k8s_service AS s
    WHERE s.selector IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM k8s_endpoint AS e WHERE e.namespace = s.namespace AND e.service = s.name AND coalesce(e.ready, true))
),
_failed AS (
    SELECT request_id, server_name, start_ns, start_ns + coalesce(latency_ns, 9e18::BIGINT - start_ns) AS end_ns FROM logical_request
    WHERE is_error AND error_kind IS DISTINCT FROM 'client' AND outcome <> 'no_request'
),
_aside AS (
    -- Somebody's own thread tries, and what the caller fails to serve fails meanwhile without it.
    SELECT a.client_name, a.server_name FROM (
        SELECT t.client_name, t.server_name, count(DISTINCT f.request_id) AS met
        FROM _try AS t LEFT JOIN _failed AS f
            ON f.server_name = t.client_name AND f.start_ns <= t.at_ns AND f.end_ns >= t.at_ns - coalesce(t.duration_ns, 0)
        WHERE t.detail <> 'ok' GROUP BY ALL) AS a
    JOIN (SELECT server_name, count(*) AS failed FROM _failed GROUP BY ALL) AS f ON f.server_name = a.client_name
    WHERE f.failed >= 5 AND a.met < 0.1 * f.failed
),
_edge AS (
    SELECT client_name, server_name, count(*) AS tries, count(*) FILTER (detail <> 'ok') AS failed,
        mode(why) AS why, mode(remote_port) FILTER (detail <> 'ok') AS port, mode(remote_ip) FILTER (detail <> 'ok') AS ip, min(at_ns) FILTER (detail <> 'ok') AS first_ns,
        max(at_ns) FILTER (detail <> 'ok') AS last_ns,
        (coalesce(sum(duration_ns) FILTER (detail <> 'ok'), 0) + 500000000 * count(*) FILTER (detail <> 'ok'))::BIGINT AS impact_ns
    FROM _try GROUP BY ALL
)
SELECT
    CASE WHEN failed / tries >= 0.5 THEN 'critical' ELSE 'warning' END AS severity, 'edge' AS scope_kind,
    e.client_name || ' -> ' || e.server_name AS scope,
    e.client_name || ' cannot connect to ' || e.server_name || ': ' || failed || ' of ' || tries || ' attempts'
        || coalesce(' to port ' || port, '') || ', ' || CASE WHEN m.service IS NOT NULL THEN 'the service has no endpoints'
            WHEN why = 'no local port' THEN 'no free local port' ELSE why END AS title,
    CASE WHEN m.service IS NOT NULL THEN 'Service ' || m.service || ' has no endpoint that is ready: no pod matches its selector, or none is ready. ' ELSE '' END
        || 'Result of most: ' || why || CASE why
        WHEN 'refused' THEN CASE WHEN l.ports IS NOT NULL AND NOT list_contains(l.ports, port)
            THEN ' (nothing listens there; ' || e.server_name || ' listens at ' || array_to_string(l.ports[:5], ', ') || ').'
            ELSE ' (nothing listens there).' END
        WHEN 'no local port' THEN ' (all local ports towards that address are taken, most by connections that were closed less than a minute ago: '
            || 'keep connections, or widen ip_local_port_range).'
        WHEN 'timeout' THEN ' (no answer at all: dropped on the way, or no such host).'
        WHEN 'unreachable' THEN ' (no route).' ELSE '.' END AS summary,
    'select * from tcp_event where kind = ''connect'' and detail <> ''ok''' AS evidence,
    CASE WHEN why IN ('timeout', 'aborted') THEN 'timeout' ELSE 'failure' END AS effect, 0.9 AS confidence, impact_ns, first_ns, last_ns, [e.client_name, e.server_name] AS entities,
    a.client_name IS NOT NULL AS aside
FROM _edge AS e
LEFT JOIN _aside AS a USING (client_name, server_name)
LEFT JOIN _listens AS l ON l.name = e.server_name
LEFT JOIN (SELECT ip, any_value(service) AS service FROM _empty GROUP BY ip) AS m USING (ip)
WHERE failed >= 3 AND failed / tries >= 0.05
