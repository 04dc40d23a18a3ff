-- Connections cannot be made.
-- Inputs: connection_health, tcp_event
-- Kind: cause
-- Effect: failure
WITH _try AS (
    SELECT h.client_name, h.server_name, e.detail, e.ts_ns, e.duration_ns
    FROM tcp_event AS e JOIN connection_health AS h USING (connection_id)
    WHERE e.kind = 'connect'
),
_edge AS (
    SELECT client_name, server_name, count(*) AS tries, count(*) FILTER (detail <> 'ok') AS failed,
        mode(detail) FILTER (detail <> 'ok') AS why, min(ts_ns) FILTER (detail <> 'ok') AS first_ns,
        max(ts_ns) FILTER (detail <> 'ok') AS last_ns,
        (coalesce(sum(duration_ns) FILTER (detail <> 'ok'), 0) + 500000000 * count(*) FILTER (detail <> 'ok'))::BIGINT AS impact_ns
    FROM _try GROUP BY ALL
)
SELECT
    CASE WHEN failed / tries >= 0.5 THEN 'critical' ELSE 'warning' END AS severity, 'edge' AS scope_kind,
    client_name || ' -> ' || server_name AS scope,
    client_name || ' cannot connect to ' || server_name || ': ' || failed || ' of ' || tries || ' attempts, ' || why AS title,
    'Result of most: ' || why || CASE why
        WHEN 'refused' THEN ' (nothing listens there).' WHEN 'timeout' THEN ' (no answer at all: dropped on the way, or no such host).'
        WHEN 'unreachable' THEN ' (no route).' ELSE '.' END AS summary,
    'select * from tcp_event where kind = ''connect'' and detail <> ''ok''' AS evidence,
    CASE WHEN why IN ('timeout', 'aborted') THEN 'timeout' ELSE 'failure' END AS effect, 0.9 AS confidence, impact_ns, first_ns, last_ns, [client_name, server_name] AS entities
FROM _edge
WHERE failed >= 3 AND failed / tries >= 0.05
