-- One statement takes long in the database itself.
-- Inputs: sql_digest, lock_wait
-- Kind: cause
SELECT
    CASE WHEN is_waiting THEN 'notice' WHEN p50_ns >= 1000000 * getvariable('slow_sql_ms') THEN 'critical' ELSE 'warning' END AS severity,
    'statement' AS scope_kind, digest AS scope,
    'Slow SQL on ' || server || ': p95 ' || as_ms(p95_ns) || ', called by ' || callers || ': '
        || shortened(regexp_replace(statement_pattern, '\s+', ' ', 'g'), 120)
        || CASE WHEN is_transfer THEN '; nearly all of it is the transfer of ' || round(response_bytes / call_count / 1048576, 1) || ' MiB' || ' each time' ELSE '' END AS title,
    call_count || ' calls took ' || round(total_ns / 1e9, 2) || ' s in all (p50 ' || as_ms(p50_ns) || ', p95 '
        || as_ms(p95_ns) || ', max ' || as_ms(max_ns) || ')'
        || coalesce('; the first byte came after p95 ' || as_ms(ttfb_p95_ns), '')
        || coalesce('; rows returned: ' || rows_sent, '')
        || CASE WHEN is_waiting THEN '; most of it is wait for locks of other transactions' ELSE '' END
        || CASE WHEN is_transfer THEN '; it is executed fast: the answers are ' || round(response_bytes / 1048576) || ' MiB'
            || ' in all, and take long to send and to read. An index does not help; fewer rows or columns do' ELSE '' END || '. Callers: ' || callers || '.' AS summary,
    'select * from request where resource = ''' || replace(statement_pattern, '''', '''''') || ''' order by latency_ns desc' AS evidence,
    CASE WHEN server_p95_ns IS NULL THEN 0.8 ELSE 0.95 END AS confidence,
    total_ns AS impact_ns, first_ns, last_ns, [server] AS entities
FROM (
    SELECT *,
        -- As lock-contention finds it.
        coalesce((SELECT count(*) >= 3 AND quantile_disc(w.wait_ns, 0.5) >= 20000000 AND sum(w.wait_ns) >= 0.5 * sql_digest.total_ns FROM lock_wait AS w
            WHERE w.server = sql_digest.server AND w.protocol = sql_digest.protocol AND w.statement_pattern = sql_digest.statement_pattern), false) AS is_waiting,
        -- The answer begins early and goes on for long: bytes, not work.
        coalesce(ttfb_p95_ns < 0.2 * p50_ns AND response_bytes >= 1048576 * call_count, false) AS is_transfer,
        sum(total_ns) OVER (PARTITION BY protocol, server) AS all_ns,
        sum(call_count) OVER (PARTITION BY protocol, server) AS all_count
    FROM sql_digest
)
WHERE call_count >= 3
    -- Time in the server where it was seen from there: a slow network is another finding.
    AND coalesce(server_p95_ns, p95_ns) >= 0.5 * p95_ns
    AND (
        coalesce(server_p95_ns, p95_ns) >= 1000000 * getvariable('slow_sql_ms')
        -- One slow execution among thousands is not what makes a system slow.
        AND (p90_ns >= 1000000 * getvariable('slow_sql_ms') OR call_count < 20)
        -- One that takes most of the server's time and many times as long as the others is slow below that, too.
        OR p50_ns >= 1000000 * getvariable('heavy_sql_ms') AND total_ns >= 0.5 * all_ns
        AND p50_ns * (all_count - call_count) >= 10 * (all_ns - total_ns) AND all_count >= 2 * call_count
    )
