-- One pod sends far more requests than its siblings, or suddenly far more than before, or so many that its server suffers.
-- Inputs: logical_request, manifest_node
-- Kind: root
-- Effect: slowness
WITH _time AS (SELECT min(start_ns) AS from_ns, max(duration_ns) AS span_ns, max(duration_ns) / 1e9 AS seconds FROM manifest_node),
_client AS (
    SELECT server_name, protocol, client_name, coalesce(client_namespace || '/' || client_pod, client_name) AS pod, count(*) AS requests,
        count(*) FILTER (start_ns < (SELECT from_ns + span_ns // 4 FROM _time)) AS early,
        count(*) FILTER (start_ns >= (SELECT from_ns + 3 * (span_ns // 4) FROM _time)) AS late,
        count(*) FILTER (is_slow OR (is_error AND error_kind IS DISTINCT FROM 'client')) AS bad,
        min(start_ns) AS first_ns, max(start_ns) AS last_ns, coalesce(sum(latency_ns), 0)::BIGINT AS total_ns
    FROM logical_request WHERE outcome <> 'no_request' GROUP BY ALL
),
_share AS (
    SELECT *, sum(requests) OVER w AS all_requests, count(*) OVER w AS clients, sum(bad) OVER w AS all_bad
    FROM _client WINDOW w AS (PARTITION BY server_name, protocol)
),
_other AS (
    SELECT s.server_name, s.protocol, s.pod, max(o.requests) AS most_requests, max(o.requests) FILTER (o.client_name = s.client_name) AS sibling_requests
    FROM _share AS s JOIN _share AS o ON o.server_name = s.server_name AND o.protocol = s.protocol AND o.pod <> s.pod
    GROUP BY ALL
)
SELECT
    -- A busy client beside a few small ones is how many systems look all day.
    CASE WHEN s.requests >= 8 * o.sibling_requests OR s.late >= 4 * greatest(s.early, 10) OR s.all_bad >= 0.05 * s.all_requests
        THEN 'warning' ELSE 'notice' END AS severity, 'pod' AS scope_kind, s.pod AS scope,
    'Most of the ' || s.protocol || ' traffic of ' || s.server_name || ' comes from pod ' || s.pod || ': '
        || round(s.requests / t.seconds) || ' requests/s, ' || round(100.0 * s.requests / s.all_requests) || ' %' AS title,
    'The next of ' || (s.clients - 1) || ' other clients sends ' || round(o.most_requests / t.seconds, 1) || ' requests/s'
        || coalesce(', its busiest sibling ' || round(o.sibling_requests / t.seconds, 1), '') || '; it sent ' || s.early
        || ' in the first quarter of the recording and ' || s.late || ' in the last.' AS summary,
    'select * from logical_request where client_pod = ''' || split_part(s.pod, '/', 2) || '''' AS evidence,
    0.8 AS confidence, s.total_ns AS impact_ns, s.first_ns, s.last_ns, [s.client_name, s.server_name] AS entities,
    [s.server_name] AS explains
FROM _share AS s JOIN _other AS o USING (server_name, protocol, pod) CROSS JOIN _time AS t
WHERE s.clients >= 2 AND s.requests >= 0.75 * s.all_requests AND s.requests >= 8 * o.most_requests
    AND s.requests / t.seconds >= getvariable('surge_rps')
