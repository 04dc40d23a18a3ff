-- One kind of command keeps a cache busy: a server with one thread serves nobody else meanwhile.
-- Inputs: logical_request
-- Kind: root
-- Effect: slowness
WITH _command AS (
    SELECT server_name, protocol, operation, count(*) AS calls, mode(statement) AS example, mode(client_name) AS client,
        quantile_disc(coalesce(server_latency_ns, latency_ns), 0.5) AS p50_ns,
        quantile_disc(coalesce(server_latency_ns, latency_ns), 0.95) AS p95_ns,
        sum(coalesce(server_latency_ns, latency_ns))::BIGINT AS total_ns, bool_and(server_latency_ns IS NOT NULL) AS from_server,
        max(response_bytes) AS response_bytes, min(start_ns) AS first_ns, max(start_ns) AS last_ns
    FROM logical_request
    WHERE protocol IN ('redis', 'memcached') AND outcome IN ('complete', 'truncated') AND latency_ns IS NOT NULL
        AND operation NOT IN ('BLPOP', 'BRPOP', 'BLMOVE', 'BZPOPMIN', 'BZPOPMAX', 'XREAD', 'XREADGROUP', 'WAIT', 'SUBSCRIBE', 'PSUBSCRIBE')
    GROUP BY ALL
)
SELECT
    CASE WHEN p50_ns >= 1000000 * getvariable('slow_cache_ms') THEN 'critical' ELSE 'warning' END AS severity,
    'workload' AS scope_kind, server_name AS scope,
    operation || ' keeps ' || server_name || ' busy: p50 ' || as_ms(p50_ns)
        || CASE WHEN response_bytes >= 1048576 THEN ', answers of up to ' || round(response_bytes / 1048576, 1) || ' MiB' ELSE '' END || ', ' || calls || ' times, by ' || client AS title,
    'Example: ' || shortened(example, 120) || ' (largest answer ' || response_bytes || ' bytes). ' || server_name
        || ' serves one command at a time: every other command waits behind it.' AS summary,
    'select * from logical_request where server_name = ''' || server_name || ''' and operation = ''' || operation || '''' AS evidence,
    CASE WHEN from_server THEN 0.95 ELSE 0.7 END AS confidence, total_ns AS impact_ns, first_ns, last_ns,
    [server_name] AS entities, [server_name] AS explains
FROM _command AS c
WHERE calls >= 3 AND p50_ns >= 1000000 * getvariable('slow_cache_ms') / 2
    -- Not the commands that only wait behind it: this one is slow itself, and costs the most.
    AND total_ns = (SELECT max(total_ns) FROM _command AS o WHERE o.server_name = c.server_name)
