-- The clocks of two nodes differ: times of one cannot be set beside those of the other.
-- Inputs: hop, request, manifest_node
-- Kind: root
-- Effect: clock
WITH _both AS (
    -- A request lies within the client's time: half of what sticks out at each end is the difference.
    SELECT c.node AS client_node, s.node AS server_node, ((s.start_ns - c.start_ns) - (c.end_ns - s.end_ns)) / 2 AS offset_ns,
        ((c.end_ns - c.start_ns) - (s.end_ns - s.start_ns)) / 2 AS error_ns, c.start_ns
    FROM hop AS k JOIN request AS c ON c.request_id = k.client_request_id JOIN request AS s ON s.request_id = k.server_request_id
    WHERE c.node <> s.node AND c.end_ns IS NOT NULL AND s.end_ns IS NOT NULL AND k.join_basis = 'position'
),
_pair AS (
    SELECT least(client_node, server_node) AS a, greatest(client_node, server_node) AS b,
        median(CASE WHEN client_node < server_node THEN offset_ns ELSE -offset_ns END)::BIGINT AS offset_ns,
        quantile_cont(error_ns, 0.25)::BIGINT AS error_ns, count(*) AS calls, min(start_ns) AS first_ns, max(start_ns) AS last_ns
    FROM _both GROUP BY ALL
),
_difference AS (
    SELECT a, b, offset_ns, error_ns, first_ns, last_ns, 'By ' || calls || ' calls that both recorded' AS basis FROM _pair WHERE calls >= 5
    UNION ALL
    SELECT clock_reference, node, clock_taken_ns, clock_error_ns, start_ns, end_ns,
        'It was set right as the recordings were merged, by the traffic between the two'
    FROM manifest_node WHERE clock_taken_ns IS NOT NULL
)
SELECT
    'warning' AS severity, 'node' AS scope_kind, b AS scope,
    'The clocks of nodes ' || a || ' and ' || b || ' differ: ' || b || ' is ' || as_ms(abs(offset_ns))
        || CASE WHEN offset_ns > 0 THEN ' ahead' ELSE ' behind' END AS title,
    basis || ', to within ' || as_ms(greatest(error_ns, 0)) || '. Logs of the two cannot be set '
        || 'beside each other; durations on one node are right.' AS summary,
    'select c.node, s.node, s.start_ns - c.start_ns from hop k join request c on c.request_id = k.client_request_id '
        || 'join request s on s.request_id = k.server_request_id where c.node <> s.node' AS evidence,
    0.95 AS confidence, 0::BIGINT AS impact_ns, first_ns, last_ns, [b, a] AS entities, []::VARCHAR[] AS explains
FROM _difference
WHERE abs(offset_ns) >= 1000000 * getvariable('clock_skew_ms') AND abs(offset_ns) > 2 * error_ns
