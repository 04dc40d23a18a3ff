-- Name look-ups fail, stay unanswered or are slow.
-- Inputs: dns_summary, logical_request, manifest_node
-- Kind: root
-- Rollup: yes
WITH _client AS (
    SELECT client_name, server_name, count(*) AS queries,
        count(*) FILTER (outcome = 'no_response') AS unanswered,
        count(*) FILTER (status NOT IN ('NOERROR', 'NXDOMAIN')) AS failed,
        count(*) FILTER (is_slow) AS slow, count(*) FILTER (status = 'NXDOMAIN') AS nxdomain,
        quantile_disc(latency_ns, 0.95) AS p95_ns, coalesce(sum(latency_ns), 0)::BIGINT AS impact_ns,
        min(start_ns) AS first_ns, max(start_ns) AS last_ns, mode(resource) AS name
    FROM logical_request WHERE protocol = 'dns' AND outcome <> 'no_request' GROUP BY ALL
)
SELECT
    CASE WHEN (unanswered + failed + slow) / queries >= 0.2 THEN 'critical'
        WHEN (unanswered + failed + slow) / queries >= 0.02 THEN 'warning' 
        -- A search path costs little until every request walks it.
        WHEN nxdomain / (SELECT max(duration_ns) / 1e9 FROM manifest_node) >= getvariable('nxdomain_rps') THEN 'warning'
        ELSE 'notice' END AS severity,
    'edge' AS scope_kind, client_name || ' -> ' || server_name AS scope,
    CASE WHEN unanswered + failed + slow >= 0.02 * queries
        THEN 'DNS for ' || client_name || ' is ' || CASE WHEN unanswered + failed >= slow THEN 'failing' ELSE 'slow' END || ': '
            || unanswered || ' unanswered, ' || failed || ' failed, ' || slow || ' slow of ' || queries || ' look-ups'
        ELSE 'DNS: ' || round(100.0 * nxdomain / queries) || ' % of the look-ups of ' || client_name || ' ask for names that do not exist'
    END AS title,
    'Asked of ' || server_name || ', p95 ' || coalesce(as_ms(p95_ns), 'unknown') || ', ' || nxdomain
        || ' NXDOMAIN (search path), most often ' || coalesce(name, '?') || '.' AS summary,
    'select * from dns_summary where client = ''' || client_name || '''' AS evidence,
    CASE WHEN unanswered + failed >= 0.02 * queries THEN '' ELSE 'slowness' END AS effect, 0.85 AS confidence, impact_ns, first_ns, last_ns, [client_name, server_name] AS entities, []::VARCHAR[] AS explains
FROM _client
WHERE queries >= 5 AND (unanswered + failed + slow >= greatest(3, 0.02 * queries) OR nxdomain >= greatest(10, 0.5 * queries))
