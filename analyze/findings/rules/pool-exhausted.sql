-- Requests wait inside of a process for one of its few connections to another server.
-- Inputs: child_call, request
-- Kind: cause
-- Effect: work
WITH _parent AS (
    SELECT request_id, node, pid, start_ns, end_ns, server_name, coalesce(server_namespace || '/' || server_pod, server_name) AS pod
    FROM request WHERE side = 'server' AND pid IS NOT NULL AND end_ns IS NOT NULL
        AND request_id IN (SELECT parent_request_id FROM child_call)
),
_turn AS (
    SELECT node, pid, at_ns, sum(step) OVER (PARTITION BY node, pid ORDER BY at_ns, step) AS in_flight FROM (
        SELECT node, pid, start_ns AS at_ns, 1 AS step FROM _parent UNION ALL SELECT node, pid, end_ns, -1 FROM _parent)
),
_call AS (
    SELECT c.parent_request_id, c.callee, c.protocol, c.start_ns, r.connection_id, r.node, r.pid, r.end_ns,
        c.start_ns - greatest(p.start_ns, coalesce(lag(r.end_ns) OVER (PARTITION BY c.parent_request_id ORDER BY c.start_ns), 0)) AS wait_ns,
        greatest(p.start_ns, coalesce(lag(r.end_ns) OVER (PARTITION BY c.parent_request_id ORDER BY c.start_ns), 0)) AS from_ns,
        p.server_name, p.pod, c.endpoint
    FROM child_call AS c
    JOIN request AS r USING (request_id)
    JOIN _parent AS p ON p.request_id = c.parent_request_id AND p.node = r.node AND p.pid = r.pid
    WHERE c.candidate_count = 1
),
_life AS (
    -- From its first use to its last, by whomever.
    SELECT node, pid, callee, protocol, connection_id, min(start_ns) AS first_ns, max(coalesce(end_ns, start_ns)) AS last_ns
    FROM _call GROUP BY ALL
),
_pool AS (
    SELECT node, pid, callee, protocol, max(open) AS most FROM (
        SELECT node, pid, callee, protocol, sum(step) OVER (PARTITION BY node, pid, callee, protocol ORDER BY at_ns, step) AS open FROM (
            SELECT node, pid, callee, protocol, first_ns AS at_ns, 1 AS step FROM _life
            UNION ALL SELECT node, pid, callee, protocol, last_ns, -1 FROM _life))
    GROUP BY ALL
),
_wait AS (
    SELECT c.*, p.most, t.in_flight,
        -- Between the time it could have begun and the time it did, another request had the same connection.
        lag(c.parent_request_id) OVER u <> c.parent_request_id AND lag(c.end_ns) OVER u > c.from_ns AS is_handed_over,
        row_number() OVER (PARTITION BY c.parent_request_id, c.callee, c.protocol ORDER BY c.start_ns) AS number
    FROM _call AS c JOIN _pool AS p USING (node, pid, callee, protocol)
    ASOF JOIN _turn AS t ON t.node = c.node AND t.pid = c.pid AND t.at_ns <= c.from_ns
    WINDOW u AS (PARTITION BY c.connection_id ORDER BY c.start_ns)
),
_late AS (
    -- Later than requests of the same kind that waited least: what they always do before their first call is no wait.
    SELECT wait_ns AS whole_wait_ns, * REPLACE (greatest(0, wait_ns - quantile_disc(wait_ns, 0.1) OVER (PARTITION BY pod, callee, protocol, endpoint)) AS wait_ns)
    FROM _wait WHERE number = 1
),
_before AS (
    -- How late any first call of a request is, to whomever: a lock, or no CPU, comes before them all.
    SELECT pod, callee, count(*) FILTER (whole_wait_ns >= 1000000 * getvariable('pool_wait_ms')) AS late, count(*) AS calls FROM (
        SELECT *, row_number() OVER (PARTITION BY parent_request_id ORDER BY start_ns) AS turn FROM _late)
    WHERE turn = 1 AND in_flight > 1 GROUP BY ALL
),
_sum AS (
    -- Of each request the first call only: between two of them it may have work to do.
    SELECT server_name, pod, callee, protocol, max(most) AS most, count(*) AS calls, max(in_flight) AS in_flight,
        count(*) FILTER (is_handed_over AND in_flight > most AND wait_ns >= 1000000 * getvariable('pool_wait_ms')) AS waits,
        quantile_disc(wait_ns, 0.5) FILTER (is_handed_over AND in_flight > most) AS crowded_ns,
        quantile_disc(wait_ns, 0.5) FILTER (NOT coalesce(is_handed_over, false)) AS alone_ns,
        coalesce(sum(wait_ns) FILTER (is_handed_over AND in_flight > most), 0)::BIGINT AS total_ns,
        quantile_disc(end_ns - start_ns, 0.5) AS call_ns,
        min(start_ns) AS first_ns, max(start_ns) AS last_ns
    FROM _late GROUP BY ALL
),
_found AS (
    SELECT * FROM _sum
    WHERE waits >= 5 AND waits >= 0.1 * calls AND crowded_ns >= 1000000 * getvariable('pool_wait_ms')
        -- Who waits as long when nobody else is there waits for something else.
        AND (alone_ns IS NULL OR crowded_ns >= 3 * alone_ns)
        AND NOT EXISTS (SELECT 1 FROM _before AS o WHERE o.pod = _sum.pod AND o.callee <> _sum.callee AND o.late >= 5 AND o.late >= 0.1 * o.calls)
)
SELECT
    'critical' AS severity, 'edge' AS scope_kind, server_name || ' -> ' || callee AS scope,
    server_name || ' waits for its own connections to ' || callee || ': ' || max(most) || ' for up to ' || max(in_flight)
        || ' requests at a time in ' || CASE WHEN count(*) = 1 THEN 'pod ' || any_value(pod) ELSE 'each of ' || count(*) || ' pods' END AS title,
    sum(waits)::BIGINT || ' of ' || sum(calls)::BIGINT || ' requests began their first call ' || as_ms(max(crowded_ns))
        || ' (p50) late, on a connection that another request had until then' || coalesce('; the others '
        || as_ms(max(alone_ns)), '') || '. The call itself takes ' || as_ms(max(call_ns))
        || ' (p50): the pool is too small, or connections are kept too long.' AS summary,
    'select * from child_call where server = ''' || server_name || ''' and callee = ''' || callee || '''' AS evidence,
    0.8 AS confidence, sum(total_ns)::BIGINT AS impact_ns, min(first_ns) AS first_ns, max(last_ns) AS last_ns, [server_name, callee] AS entities
FROM _found GROUP BY server_name, callee, protocol
