-- One pod of a workload answers slower than its siblings do, on the same operations.
-- Inputs: logical_request
-- Kind: cause
WITH _own AS (
    SELECT server_name, server_namespace, server_pod, server_version, protocol,
        coalesce(server_latency_ns, latency_ns) AS own_ns, server_latency_ns IS NOT NULL AS from_server, start_ns
    FROM logical_request
    WHERE server_pod IS NOT NULL AND coalesce(server_latency_ns, latency_ns) IS NOT NULL
),
_pod AS (
    SELECT server_name, server_namespace, server_pod, any_value(server_version) AS server_version, protocol,
        count(*) AS requests, quantile_disc(own_ns, 0.50) AS p50_ns, sum(own_ns)::BIGINT AS total_ns,
        min(start_ns) AS first_ns, max(start_ns) AS last_ns, bool_and(from_server) AS from_server
    FROM _own GROUP BY ALL HAVING count(*) >= 20
),
_compared AS (
    SELECT a.*, count(*) AS sibling_count, median(b.p50_ns)::BIGINT AS sibling_p50_ns, max(b.p50_ns) AS sibling_max_ns
    FROM _pod AS a
    JOIN _pod AS b ON a.server_name = b.server_name AND a.protocol = b.protocol AND a.server_pod <> b.server_pod
    GROUP BY ALL
)
SELECT
    'critical' AS severity, 'pod' AS scope_kind, server_namespace || '/' || server_pod AS scope,
    'Pod ' || server_pod || ' of ' || server_name || ' is slow: p50 ' || as_ms(p50_ns) || ', its '
        || sibling_count || ' siblings ' || as_ms(sibling_p50_ns) AS title,
    requests || ' ' || protocol || ' requests' || coalesce(', version ' || server_version, '') || '; the slowest sibling has p50 '
        || as_ms(sibling_max_ns)
        || CASE WHEN from_server THEN '; measured in the pod itself, so the network is not the reason.'
            ELSE '; measured by its callers.' END AS summary,
    'select * from logical_request where server_pod = ''' || server_pod || ''' order by latency_ns desc' AS evidence,
    CASE WHEN from_server THEN 0.95 ELSE 0.7 END AS confidence,
    (requests * (p50_ns - sibling_p50_ns))::BIGINT AS impact_ns, first_ns, last_ns, [server_name] AS entities
FROM _compared
WHERE p50_ns >= getvariable('slow_replica_factor') * sibling_max_ns
    AND p50_ns - sibling_max_ns >= 1000000 * getvariable('slow_replica_ms')
