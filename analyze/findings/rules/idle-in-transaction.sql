-- Transactions stay open while the application does something else.
-- Inputs: transaction, lock_wait
-- Kind: root
-- Effect: slowness
WITH _waiting AS (
    SELECT holder_connection_id, list(DISTINCT left(md5(statement_pattern), 16)) AS digests, count(*) AS waits, sum(wait_ns) AS wait_ns
    FROM lock_wait GROUP BY holder_connection_id
),
_idle AS (
    SELECT t.client, t.server, t.idle_ns, t.duration_ns, t.start_ns, t.end_ns, t.first_write, w.digests, w.waits, w.wait_ns,
        row_number() OVER (PARTITION BY t.connection_id ORDER BY t.start_ns) = 1 AS is_first
    FROM transaction AS t LEFT JOIN _waiting AS w ON w.holder_connection_id = t.connection_id
    WHERE t.idle_ns >= 1000000 * getvariable('idle_transaction_ms') AND t.idle_ns >= 0.5 * t.duration_ns AND t.write_count > 0
)
SELECT
    CASE WHEN coalesce(sum(waits) FILTER (is_first), 0) > 0 THEN 'critical' ELSE 'warning' END AS severity,
    'edge' AS scope_kind, client || ' -> ' || server AS scope,
    'Transactions of ' || client || ' on ' || server || ' stay open while it does something else: idle p95 '
        || as_ms(quantile_disc(idle_ns, 0.95)) AS title,
    count(*) || ' transactions were open ' || as_ms(quantile_disc(duration_ns, 0.5)) || ' (p50), of it idle '
        || as_ms(quantile_disc(idle_ns, 0.5)) || '; they had run: ' || coalesce(shortened(mode(first_write), 120), '?')
        || coalesce('; ' || (sum(waits) FILTER (is_first))::BIGINT || ' statements of others waited for their locks', '') || '.' AS summary,
    'select * from transaction where client = ''' || client || ''' and server = ''' || server || ''' order by idle_ns desc' AS evidence,
    0.9 AS confidence, coalesce(sum(wait_ns) FILTER (is_first), 0)::BIGINT + sum(idle_ns)::BIGINT AS impact_ns,
    min(start_ns) AS first_ns, max(end_ns) AS last_ns, [client, server] AS entities,
    coalesce(flatten(list(digests) FILTER (digests IS NOT NULL)), []) AS explains
FROM _idle
GROUP BY client, server
HAVING count(*) >= 3
