-- A server answers with errors of its own.
-- Inputs: logical_request
-- Kind: cause
-- Effect: failure
WITH _server AS (
    SELECT server_name, protocol, count(*) AS requests,
        count(*) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS errors,
        mode(status) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS status,
        mode(error_message) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS message,
        mode(server_pod) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS pod,
        mode(client_name) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS client,
        count(DISTINCT client_name) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS clients,
        min(start_ns) FILTER (is_error) AS first_ns, max(start_ns) FILTER (is_error) AS last_ns,
        -- A failure costs its user more than the time it took.
        coalesce(sum(latency_ns) FILTER (is_error), 0)::BIGINT AS impact_ns
    FROM logical_request WHERE outcome <> 'no_request' GROUP BY ALL
),
_pod AS (
    SELECT server_name, protocol, server_pod,
        count(*) FILTER (is_error AND error_kind IS DISTINCT FROM 'client') AS errors, count(*) AS requests
    FROM logical_request WHERE server_pod IS NOT NULL AND outcome <> 'no_request' GROUP BY ALL
),
_one AS (
    SELECT server_name, protocol, count(*) AS pods, max(errors) / nullif(sum(errors), 0) AS worst_share FROM _pod GROUP BY ALL
)
SELECT
    CASE WHEN s.errors / s.requests >= 0.05 THEN 'critical' ELSE 'warning' END AS severity,
    'workload' AS scope_kind, s.server_name AS scope,
    s.server_name || CASE WHEN o.pods > 1 AND o.worst_share >= 0.9 THEN ' (pod ' || s.pod || ')' ELSE '' END || ' fails '
        || round(100.0 * s.errors / s.requests, 1) || ' % of its ' || s.protocol || ' requests, mostly with '
        || coalesce(s.status, 'no answer') AS title,
    s.errors || ' of ' || s.requests || ' requests failed, ' || CASE WHEN s.clients > 1 THEN 'most' ELSE 'all' END || ' of them asked by '
        || s.client || coalesce('; most often: ' || shortened(s.message, 200), '') || '.' AS summary,
    'select * from logical_request where is_error and server_name = ''' || s.server_name || '''' AS evidence,
    CASE WHEN coalesce(s.status, 'no answer') IN ('504', '408', '4', 'no answer') THEN 'timeout' ELSE 'failure' END AS effect,
    0.9 AS confidence, (s.impact_ns + s.errors * 500000000)::BIGINT AS impact_ns, s.first_ns, s.last_ns, [s.server_name] AS entities
FROM _server AS s LEFT JOIN _one AS o USING (server_name, protocol)
WHERE s.errors >= 5 AND s.errors / s.requests >= getvariable('error_ratio')
