-- Established connections are cut off by a reset.
-- Inputs: tcp_event, connection_health, request
-- Kind: cause
-- Effect: timeout
WITH _reset AS (
    SELECT h.client_name, h.server_name, e.connection_id, min(realtime_ns(e.node, e.ts_ns)) AS at_ns,
        bool_or(e.kind = 'reset_received') AS is_received
    FROM tcp_event AS e
    JOIN connection_health AS h USING (connection_id)
    WHERE e.kind IN ('reset_sent', 'reset_received')
        -- A refused connect is answered by a reset, too: that is another finding.
        AND h.sent_bytes + h.received_bytes > 0
    GROUP BY ALL
),
_lost AS (
    -- What was under way on those very connections: a recording's end leaves requests without an answer, too.
    SELECT t.client_name, t.server_name, greatest(count(*) FILTER (r.side = 'server'), count(*) FILTER (r.side <> 'server'))
            AS unanswered
    FROM request AS r JOIN _reset AS t USING (connection_id)
    WHERE r.outcome IN ('no_response', 'truncated') GROUP BY ALL
)
SELECT
    CASE WHEN coalesce(any_value(l.unanswered), 0) >= 3 THEN 'critical' ELSE 'warning' END AS severity, 'edge' AS scope_kind,
    r.client_name || ' -> ' || r.server_name AS scope,
    'Connections between ' || r.client_name || ' and ' || r.server_name || ' are reset: ' || count(DISTINCT connection_id)
        || ' connection ends saw it' AS title,
    'Bytes had been exchanged before. ' || coalesce(any_value(l.unanswered), 0) || ' requests stayed without a whole answer'
        || CASE WHEN bool_and(is_received) THEN '; every recorded end received its reset: it came from the other side or from between.'
            ELSE '.' END AS summary,
    'select * from tcp_event where kind in (''reset_sent'', ''reset_received'')' AS evidence,
    0.85 AS confidence, count(*) * 100000000 AS impact_ns, min(at_ns) AS first_ns,
    max(at_ns) AS last_ns, [r.client_name, r.server_name] AS entities
FROM _reset AS r
LEFT JOIN _lost AS l USING (client_name, server_name)
GROUP BY r.client_name, r.server_name
-- Clients that close with unread bytes reset too: only where it hurts requests, or is common.
HAVING count(DISTINCT connection_id) >= 5 AND coalesce(any_value(l.unanswered), 0) >= 2
