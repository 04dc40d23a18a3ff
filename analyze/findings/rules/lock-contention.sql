-- Statements wait for row locks that other transactions hold.
-- Inputs: lock_wait, sql_digest
-- Kind: cause
WITH _held AS (
    SELECT server, protocol, statement_pattern, holder_write, holder_client, client, wait_ns, start_ns FROM lock_wait
)
SELECT
    CASE WHEN quantile_disc(wait_ns, 0.5) >= 1000000 * getvariable('slow_sql_ms') THEN 'critical' ELSE 'warning' END AS severity,
    'statement' AS scope_kind, left(md5(h.statement_pattern), 16) AS scope,
    'Transactions on ' || h.server || ' wait for locks: ' || shortened(h.statement_pattern, 80) || ' waits p95 '
        || as_ms(quantile_disc(wait_ns, 0.95)) || ' for transactions of ' || mode(holder_client) AS title,
    count(*) || ' of ' || any_value(d.call_count) || ' executions by ' || mode(client)
        || ' ended within 5 ms of the end of another transaction, which had begun before and had run: '
        || shortened(mode(holder_write), 160) || '.' AS summary,
    'select * from lock_wait where server = ''' || h.server || '''' AS evidence,
    least(0.95, 0.6 + count(*) / 40.0) AS confidence, sum(wait_ns)::BIGINT AS impact_ns, min(start_ns) AS first_ns,
    max(start_ns) AS last_ns, [h.server, left(md5(h.statement_pattern), 16)] AS entities,
    [left(md5(h.statement_pattern), 16)] AS explains
FROM _held AS h
JOIN sql_digest AS d ON d.server = h.server AND d.protocol = h.protocol AND d.statement_pattern = h.statement_pattern
GROUP BY h.server, h.statement_pattern
HAVING count(*) >= 3 AND quantile_disc(wait_ns, 0.5) >= 20000000
    -- Most of what is slow about the statement is explained so.
    AND sum(wait_ns) >= 0.5 * any_value(d.total_ns)
