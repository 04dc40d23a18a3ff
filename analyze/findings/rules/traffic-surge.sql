-- One pod sends far more requests than its siblings, or suddenly far more than before.
-- Inputs: logical_request, manifest_node
-- Kind: root
-- Effect: slowness
WITH _client AS (
    SELECT server_name, protocol, client_name, coalesce(client_namespace || '/' || client_pod, client_name) AS pod, count(*) AS requests,
        coalesce(sum(request_bytes), 0) + coalesce(sum(response_bytes), 0) AS bytes, min(start_ns) AS first_ns, max(start_ns) AS last_ns,
        coalesce(sum(latency_ns), 0)::BIGINT AS total_ns
    FROM logical_request WHERE outcome <> 'no_request' GROUP BY ALL
),
_share AS (
    SELECT *, sum(requests) OVER (PARTITION BY server_name, protocol) AS all_requests,
        count(*) OVER (PARTITION BY server_name, protocol) AS clients,
        (SELECT max(duration_ns) FROM manifest_node) / 1e9 AS seconds
    FROM _client
),
_other AS (
    SELECT s.server_name, s.protocol, s.pod, quantile_disc(o.requests, 0.5) AS median_requests, max(o.requests) AS most_requests
    FROM _share AS s JOIN _share AS o ON o.server_name = s.server_name AND o.protocol = s.protocol AND o.pod <> s.pod
    GROUP BY ALL
)
SELECT
    'warning' AS severity, 'pod' AS scope_kind, s.pod AS scope,
    'Most of the ' || s.protocol || ' traffic of ' || s.server_name || ' comes from pod ' || s.pod || ': '
        || round(s.requests / s.seconds) || ' requests/s, ' || round(100.0 * s.requests / s.all_requests) || ' %' AS title,
    'The next of ' || (s.clients - 1) || ' other clients sends ' || round(o.most_requests / s.seconds, 1) || ' requests/s.' AS summary,
    'select * from logical_request where client_pod = ''' || split_part(s.pod, '/', 2) || '''' AS evidence,
    0.8 AS confidence, s.total_ns AS impact_ns, s.first_ns, s.last_ns, [s.client_name, s.server_name] AS entities,
    [s.server_name] AS explains
FROM _share AS s JOIN _other AS o USING (server_name, protocol, pod)
WHERE s.clients >= 2 AND s.requests >= 0.75 * s.all_requests AND s.requests >= 8 * o.most_requests
    AND s.requests / s.seconds >= getvariable('surge_rps')
