-- One pod of a workload answers slower than its siblings do, on the same operations.
-- Inputs: logical_request, request_time_split
-- Kind: cause
WITH _own AS (
    -- In whole, and without what it waited for others: a slow server behind all of them hides the odd one.
    SELECT l.server_name, l.server_namespace, l.server_pod, l.server_version, l.protocol, p.part,
        CASE p.part WHEN 'whole' THEN coalesce(l.server_latency_ns, l.latency_ns) ELSE t.own_ns END AS own_ns,
        -- While a process stands still its requests wait in the kernel: only their callers see how long.
        coalesce(l.latency_ns, l.server_latency_ns) AS seen_ns, l.server_latency_ns IS NOT NULL AS from_server, l.start_ns
    FROM logical_request AS l
    CROSS JOIN (VALUES ('whole'), ('own')) AS p(part)
    LEFT JOIN request_time_split AS t USING (request_id)
    -- Failures take their own time, shorter or longer: pods are compared by what they do well.
    WHERE NOT coalesce(l.is_error, false) AND l.server_pod IS NOT NULL AND coalesce(l.server_latency_ns, l.latency_ns) IS NOT NULL
        AND (p.part = 'whole' OR (t.own_ns IS NOT NULL AND t.downstream_call_count > 0))
),
_pod AS (
    SELECT server_name, server_namespace, server_pod, any_value(server_version) AS server_version, protocol, part,
        count(*) AS requests, quantile_disc(own_ns, 0.50) AS p50_ns, quantile_disc(seen_ns, 0.95) AS seen_p95_ns, max(seen_ns) AS seen_max_ns, sum(own_ns)::BIGINT AS total_ns,
        min(start_ns) AS first_ns, max(start_ns) AS last_ns, bool_and(from_server) AS from_server
    FROM _own GROUP BY ALL HAVING count(*) >= 20
),
_normal AS (
    -- What each pod's siblings need for nearly all of their requests.
    SELECT a.server_pod, a.server_name, a.protocol, max(b.seen_p95_ns) AS most_ns
    FROM _pod AS a JOIN _pod AS b ON a.server_name = b.server_name AND a.protocol = b.protocol AND a.server_pod <> b.server_pod
    WHERE a.part = 'whole' AND b.part = 'whole'
    GROUP BY ALL
),
_pause AS (
    SELECT o.server_name, o.server_pod, o.protocol,
        count(*) FILTER (o.seen_ns > 4 * n.most_ns AND o.seen_ns > n.most_ns + 50000000) AS stalls,
        coalesce(sum(o.seen_ns) FILTER (o.seen_ns > 4 * n.most_ns AND o.seen_ns > n.most_ns + 50000000), 0)::BIGINT AS stalled_ns
    FROM _own AS o JOIN _normal AS n USING (server_name, server_pod, protocol) WHERE o.part = 'whole' GROUP BY ALL
),
_compared AS (
    SELECT a.*, count(*) AS sibling_count, median(b.p50_ns)::BIGINT AS sibling_p50_ns, max(b.p50_ns) AS sibling_max_ns
    FROM _pod AS a
    JOIN _pod AS b ON a.server_name = b.server_name AND a.protocol = b.protocol AND a.part = b.part AND a.server_pod <> b.server_pod
    GROUP BY ALL
)
SELECT * FROM (
SELECT
    'critical' AS severity, 'pod' AS scope_kind, server_namespace || '/' || server_pod AS scope,
    'Pod ' || server_pod || ' of ' || server_name || ' is slow: ' || CASE part WHEN 'own' THEN 'of its own time ' ELSE '' END || 'p50 ' || as_ms(p50_ns) || ', its '
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
QUALIFY row_number() OVER (PARTITION BY server_name, server_pod, protocol ORDER BY part DESC) = 1)
UNION ALL
-- As fast as its siblings, but for some requests: it stops now and then.
SELECT
    'warning', 'pod', c.server_namespace || '/' || c.server_pod,
    'Pod ' || c.server_pod || ' of ' || c.server_name || ' stalls: ' || p.stalls || ' of ' || c.requests || ' requests take up to '
        || as_ms(c.seen_max_ns) || ', those of its ' || c.sibling_count || ' siblings p95 ' || as_ms(n.most_ns),
    'Its other requests are as fast as theirs (p50 ' || as_ms(c.p50_ns) || ' in the server); how long is measured by its callers. The process pauses (garbage collection, a stopped or '
        || 'starved container) or some requests wait for something only this pod has.',
    'select * from logical_request where server_pod = ''' || c.server_pod || ''' order by latency_ns desc', 0.8,
    p.stalled_ns, c.first_ns, c.last_ns, [c.server_name]
FROM _compared AS c
JOIN _pause AS p USING (server_name, server_pod, protocol)
JOIN _normal AS n USING (server_name, server_pod, protocol)
WHERE c.part = 'whole' AND p.stalls >= 5 AND p.stalls >= 0.05 * c.requests
    AND c.p50_ns < getvariable('slow_replica_factor') * c.sibling_max_ns
    -- The siblings have none of it.
    AND p.stalls > 3 * coalesce((SELECT max(o.stalls) FROM _pause AS o
        WHERE o.server_name = c.server_name AND o.protocol = c.protocol AND o.server_pod <> c.server_pod), 0)
