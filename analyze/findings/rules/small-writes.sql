-- Small messages arrive in parts with a pause between them, on a fast network: Nagle's algorithm waits for a delayed acknowledgement.
-- Inputs: hop, request, connection_health, tcp_sample
-- Kind: cause
-- Effect: work
WITH _way AS (
    SELECT c.client_name, s.server_name, c.protocol, c.latency_ns, c.start_ns, c.connection_id AS client_connection_id,
        -- How much longer the message took to arrive than to be sent.
        greatest(0, (s.request_end_ns - s.start_ns) - (c.request_end_ns - c.start_ns)) AS up_ns,
        greatest(0, (c.end_ns - c.response_start_ns) - (s.end_ns - s.response_start_ns)) AS down_ns
    FROM hop AS k
    JOIN request AS c ON c.request_id = k.client_request_id
    JOIN request AS s ON s.request_id = k.server_request_id
    WHERE k.join_basis = 'position' AND c.request_bytes < 16384 AND c.response_bytes < 16384 AND c.end_ns IS NOT NULL AND s.end_ns IS NOT NULL
        AND c.outcome = 'complete' AND c.stream_id IS NULL
),
_edge AS (
    SELECT client_name, server_name, protocol, count(*) AS calls, quantile_disc(up_ns, 0.5) AS up_ns, quantile_disc(down_ns, 0.5) AS down_ns,
        count(*) FILTER (greatest(up_ns, down_ns) >= 20000000) AS held, sum(greatest(up_ns, down_ns))::BIGINT AS held_ns,
        sum(latency_ns)::BIGINT AS total_ns, min(start_ns) AS first_ns, max(start_ns) AS last_ns
    FROM _way GROUP BY ALL
),
_tcp AS (
    -- The round trip itself: without the receiver's pauses.
    SELECT client_name, server_name, min(s.min_rtt_ns) AS rtt_ns, sum(h.retransmit_count) AS resent
    FROM connection_health AS h LEFT JOIN tcp_sample AS s USING (connection_id)
    WHERE h.transport = 'tcp' GROUP BY ALL
)
SELECT
    'warning' AS severity, 'edge' AS scope_kind, e.client_name || ' -> ' || e.server_name AS scope,
    CASE WHEN e.up_ns >= e.down_ns THEN 'Requests of ' || e.client_name || ' to ' || e.server_name
        ELSE 'Answers of ' || e.server_name || ' to ' || e.client_name END || ' are held back on the way for '
        || as_ms(greatest(e.up_ns, e.down_ns)) || ' (p50) though the network is fast: written in small parts' AS title,
    e.held || ' of ' || e.calls || ' ' || e.protocol || ' calls, ' || round(100.0 * e.held_ns / e.total_ns)
        || ' % of their time. The round trip takes ' || as_ms(t.rtt_ns)
        || '. The sender''s kernel keeps the second part until the first is acknowledged (Nagle), the receiver''s waits up to 40 ms to '
        || 'acknowledge: write each message at once, or set TCP_NODELAY.' AS summary,
    'select * from logical_request where client_name = ''' || e.client_name || ''' and server_name = ''' || e.server_name || '''' AS evidence,
    0.85 AS confidence, e.held_ns AS impact_ns, e.first_ns, e.last_ns, [e.client_name, e.server_name] AS entities
FROM _edge AS e JOIN _tcp AS t USING (client_name, server_name)
WHERE e.held >= 10 AND e.held >= 0.25 * e.calls AND e.held_ns >= 0.3 * e.total_ns
    AND t.rtt_ns < 5000000 AND t.resent < 0.05 * e.calls
