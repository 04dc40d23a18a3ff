-- One request runs the same statement again and again.
-- Inputs: child_call
-- Kind: cause
-- Effect: work
WITH _repeat AS (
    SELECT parent_request_id, server, endpoint, callee, protocol, resource, 
        -- Of a thread that served several, each has its share.
        sum(CASE basis WHEN 'guess' THEN 1.0 / candidate_count ELSE 1 END) AS calls, sum(latency_ns) AS spent_ns,
        min(start_ns) AS first_ns, max(start_ns) AS last_ns, count(DISTINCT operation) AS operations
    FROM child_call
    WHERE resource IS NOT NULL AND protocol NOT IN ('dns')
        AND NOT regexp_matches(resource, '^(begin|commit|rollback|set |start transaction|insert)')
    GROUP BY ALL
)
SELECT
    CASE WHEN sum(spent_ns) / count(*) >= 20000000 OR median(calls) >= 50 THEN 'critical' ELSE 'warning' END AS severity,
    'endpoint' AS scope_kind, server || ' ' || endpoint AS scope,
    server || ' asks ' || callee || ' ' || median(calls)::BIGINT || ' times for each ' || endpoint || ': '
        || shortened(resource, 90) AS title,
    count(*) || ' requests made ' || sum(calls)::BIGINT || ' calls of this one shape (N+1), ' || as_ms((sum(spent_ns) / count(*))::BIGINT)
        || ' in each request; one call for all of them would do.' AS summary,
    'select * from child_call where endpoint = ''' || replace(endpoint, '''', '''''') || ''' and callee = ''' || callee || '''' AS evidence,
    0.9 AS confidence, sum(spent_ns)::BIGINT AS impact_ns, min(first_ns) AS first_ns, max(last_ns) AS last_ns,
    [server, callee] AS entities
FROM _repeat
WHERE calls >= getvariable('n_plus_one_calls')
GROUP BY server, endpoint, callee, protocol, resource
HAVING count(*) >= 3
