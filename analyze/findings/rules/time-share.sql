-- One place takes most of the time of the requests that come from outside, fast or slow as that may be.
-- Inputs: logical_request, child_call, request_time_split
-- Kind: notice
WITH RECURSIVE _server AS (
    SELECT DISTINCT server_name FROM logical_request WHERE outcome <> 'no_request' AND server_request_id IS NOT NULL
),
_asked AS (
    -- Who serves nobody asks on somebody's behalf: a user, a load balancer, a timer.
    SELECT *, quantile_disc(latency_ns, 0.5) OVER (PARTITION BY server_name, protocol) AS p50_ns
    FROM logical_request
    WHERE latency_ns IS NOT NULL AND protocol NOT IN ('dns', 'mdns', 'llmnr', 'websocket', 'tls')
        AND client_name NOT IN (FROM _server) AND server_name IN (FROM _server)
),
_root AS (
    SELECT server_name AS entry, protocol, p50_ns, request_id, server_request_id, latency_ns, start_ns FROM _asked
    WHERE latency_ns >= p50_ns AND p50_ns >= 1000000 * getvariable('time_share_ms')
    -- Some hundreds say where the time goes.
    QUALIFY row_number() OVER (PARTITION BY server_name, protocol ORDER BY hash(request_id)) <= 500
),
_tree AS (
    SELECT entry, protocol, request_id, server_request_id, 0 AS depth FROM _root
    UNION ALL
    SELECT t.entry, t.protocol, l.request_id, l.server_request_id, t.depth + 1
    FROM _tree AS t
    JOIN child_call AS c ON c.parent_request_id = t.server_request_id AND c.basis <> 'guess'
    JOIN logical_request AS l ON l.request_id = c.request_id
    WHERE t.depth < 16
),
_spent AS (
    SELECT t.entry, t.protocol, s.server AS place, coalesce(s.own_ns, s.total_ns) AS ns, s.server_ns IS NULL AS is_outside,
        s.on_cpu_ns, s.run_queue_ns, s.lock_ns, s.timer_ns, s.disk_ns
    FROM _tree AS t JOIN request_time_split AS s USING (request_id)
    UNION ALL
    SELECT t.entry, t.protocol, 'the way from ' || l.client_name || ' to ' || l.server_name,
        coalesce(s.network_ns, 0) + coalesce(s.proxy_ns, 0), false, NULL, NULL, NULL, NULL, NULL
    FROM _tree AS t JOIN request_time_split AS s USING (request_id) JOIN logical_request AS l USING (request_id)
    WHERE s.server_ns IS NOT NULL
),
_place AS (
    SELECT entry, protocol, place, sum(ns) AS ns, bool_and(is_outside) AS is_outside,
        list_max([
            {'ns': sum(on_cpu_ns), 'kind': 'on a CPU'}, {'ns': sum(run_queue_ns), 'kind': 'waiting for a CPU'},
            {'ns': sum(lock_ns), 'kind': 'waiting for a lock or another of its threads'},
            {'ns': sum(timer_ns), 'kind': 'asleep until a time of its own choice'}, {'ns': sum(disk_ns), 'kind': 'waiting for storage'}
        ]) AS most
    FROM _spent GROUP BY ALL
),
_whole AS (
    SELECT entry, protocol, any_value(p50_ns) AS p50_ns, count(*) AS requests, sum(latency_ns) AS total_ns,
        min(start_ns) AS first_ns, max(start_ns) AS last_ns
    FROM _root GROUP BY ALL
),
_share AS (
    SELECT entry, protocol, max_by(p, ns) AS top,
        string_agg(place || ' ' || round(100 * ns / total_ns, 1) || ' %', ', ' ORDER BY ns DESC) FILTER (ns >= 0.01 * total_ns) AS places
    FROM (SELECT p.*, w.total_ns, {'place': place, 'share': ns / total_ns, 'is_outside': is_outside,
            'kind': CASE WHEN most.ns >= 0.5 * ns THEN most.kind END} AS p
        FROM _place AS p JOIN _whole AS w USING (entry, protocol))
    GROUP BY ALL
)
SELECT
    'notice' AS severity, 'workload' AS scope_kind, entry AS scope,
    'Of the time of requests to ' || entry || ' (p50 ' || as_ms(p50_ns) || ', ' || protocol || ') ' || round(100 * least(1, top.share)) || ' % is spent '
        || CASE WHEN top.place LIKE 'the way %' THEN 'on ' ELSE 'in ' END || top.place || coalesce(', most of it ' || top.kind, '') AS title,
    'Of ' || requests || ' requests of its slower half: ' || places || '.'
        || CASE WHEN top.is_outside THEN ' ' || top.place || ' was not recorded: its time holds the way to it.' ELSE '' END AS summary,
    'select t.* from request_time_split as t join logical_request using (request_id) where server_name = '''
        || entry || ''' order by total_ns desc' AS evidence,
    0.8 AS confidence, total_ns::BIGINT AS impact_ns, first_ns, last_ns, [entry, top.place] AS entities
FROM _whole JOIN _share USING (entry, protocol)
WHERE requests >= 5 AND top.share >= 0.5
