-- Calls between two workloads spend their time on the way, without losing packets: distance or a full link.
-- Inputs: edge, connection_health, connection_identity, connection, tcp_sample, k8s_node
-- Kind: root
-- Effect: slowness
-- Rollup: yes
WITH _tcp AS (
    SELECT h.client_name, h.server_name, 
        -- The smaller of both ends': who has nothing to send acknowledges up to 40 ms late, or with its answer.
        least(quantile_disc(s.srtt_ns, 0.5) FILTER (h.is_client), quantile_disc(s.srtt_ns, 0.5) FILTER (NOT h.is_client)) AS rtt_p50_ns,
        least(quantile_disc(s.srtt_ns, 0.95) FILTER (h.is_client), quantile_disc(s.srtt_ns, 0.95) FILTER (NOT h.is_client)) AS rtt_p95_ns,
        quantile_disc(s.min_rtt_ns, 0.5) AS least_rtt_ns, quantile_disc(s.send_queue_bytes, 0.95) AS queue_bytes,
        -- What the other end lets be on the way, where it is that and not the congestion window that holds the rest back.
        median(s.send_window_bytes) FILTER (s.send_queue_bytes >= 8192 AND s.send_window_bytes < s.send_queue_bytes
            AND s.send_window_bytes < 1448 * s.cwnd_segments) AS window_bytes,
        count(*) FILTER (s.send_queue_bytes >= 8192) AS full, count(*) FILTER (s.send_queue_bytes >= 8192
            AND s.send_window_bytes < s.send_queue_bytes AND s.send_window_bytes < 1448 * s.cwnd_segments) AS held,
        arg_max(h.remote_name, s.send_queue_bytes) AS reader, max(s.receive_queue_bytes) AS unread_bytes,
        greatest(quantile_disc(s.receive_queue_bytes, 0.5) FILTER (h.is_client), quantile_disc(s.receive_queue_bytes, 0.5) FILTER (NOT h.is_client))
            AS unread_p50_bytes, max(s.delivery_rate_bps) AS rate_bps
    FROM tcp_sample AS s JOIN connection_health AS h USING (connection_id)
    WHERE s.srtt_ns IS NOT NULL GROUP BY ALL
),
_link AS (
    SELECT client_name, server_name, list([pod, other]) AS links FROM (
        SELECT client_name, server_name, least(pod, other) AS pod, greatest(pod, other) AS other FROM (
            SELECT h.client_name, h.server_name, i.local_namespace || '/' || i.local_pod AS pod, i.remote_namespace || '/' || i.remote_pod AS other,
                quantile_disc(s.srtt_ns, 0.5) AS rtt_ns
            FROM tcp_sample AS s JOIN connection_health AS h USING (connection_id) JOIN connection_identity AS i USING (connection_id)
            WHERE i.local_pod IS NOT NULL AND i.remote_pod IS NOT NULL AND s.srtt_ns IS NOT NULL GROUP BY ALL)
        GROUP BY ALL HAVING min(rtt_ns) >= 1000000 * getvariable('slow_network_ms'))
    GROUP BY ALL
),
_lost AS (
    SELECT client_name, server_name, sum(retransmit_count) / nullif(sum(sent_segments), 0) AS resent,
        min(realtime_ns(c.node, first_ns)) AS first_ns, max(realtime_ns(c.node, last_ns)) AS last_ns
    FROM connection_health AS h JOIN connection AS c USING (connection_id) WHERE h.transport = 'tcp' GROUP BY ALL
)
SELECT
    CASE WHEN e.network_p50_ns >= e.server_p50_ns THEN 'critical' ELSE 'warning' END AS severity,
    'edge' AS scope_kind, e.client || ' -> ' || e.server AS scope,
    'is slow: '
        -- What was sent and not acknowledged: more than a few segments wait for room, not for distance.
        || CASE WHEN t.held >= 0.5 * t.full AND t.full > 0 AND coalesce(t.unread_bytes, 0) < 8192
            THEN 'the receive window of ' || t.reader || ' lets ' || round(t.window_bytes)::BIGINT || ' bytes be on the way at a time, round-trip time p50 '
                || as_ms(t.rtt_p50_ns)
            WHEN t.queue_bytes >= 8192
            THEN 'packets queue (too little bandwidth), round-trip time p95 ' || as_ms(t.rtt_p95_ns)
            ELSE 'round-trip time p50 ' || as_ms(t.rtt_p50_ns) END AS what,
    'Network between ' || e.client || ' and ' || e.server || ' ' || what AS title,
    'Of ' || as_ms(e.p50_ns) || ' that a call takes (p50) the network takes ' || as_ms(e.network_p50_ns)
        || ' and the server ' || as_ms(e.server_p50_ns) || '; ' || round(100 * coalesce(l.resent, 0), 2)
        || ' % of the segments were sent again' || coalesce(', up to ' || t.queue_bytes || ' bytes wait to be sent', '')
        || CASE WHEN t.held >= 0.5 * t.full AND t.full > 0 AND coalesce(t.unread_bytes, 0) < 8192
            THEN '; ' || t.reader || ' reads what comes, but its receive buffer is small (SO_RCVBUF, tcp_rmem): one window goes each round trip' ELSE '' END
        || '.' AS summary,
    'select * from edge where client = ''' || e.client || ''' and server = ''' || e.server || '''' AS evidence,
    0.9 AS confidence, e.network_total_ns AS impact_ns, l.first_ns, l.last_ns, [e.client, e.server] AS entities,
    [e.client || ' -> ' || e.server] AS explains, k.links
FROM edge AS e
JOIN _tcp AS t ON t.client_name = e.client AND t.server_name = e.server
LEFT JOIN _lost AS l ON l.client_name = e.client AND l.server_name = e.server
LEFT JOIN _link AS k ON k.client_name = e.client AND k.server_name = e.server
WHERE e.joined_count >= 10 AND e.network_p50_ns >= 1000000 * getvariable('slow_network_ms')
    AND greatest(t.rtt_p50_ns, t.rtt_p95_ns) >= 1000000 * getvariable('slow_network_ms')
    AND e.network_total_ns >= 0.3 * e.total_ns
    -- A server that is slow to answer acknowledges up to 40 ms late, too.
    AND (t.queue_bytes >= 8192 OR t.rtt_p50_ns >= 40000000 OR coalesce(e.server_p95_ns, 0) < 40000000)
    -- So is a reader that leaves what has arrived: the network has done its part.
    AND coalesce(t.unread_p50_bytes, 0) < 1024 * getvariable('unread_kib')
    -- Loss is another finding, and explains the time better.
    AND coalesce(l.resent, 0) < getvariable('lossy_link_ratio')
UNION ALL
-- Only the caller was recorded: the smallest round-trip time is the way, whatever the server does. Far peers outside of the
-- cluster are far by nature.
SELECT CASE WHEN t.least_rtt_ns >= 0.5 * e.p50_ns THEN 'critical' ELSE 'warning' END, 'edge', e.client || ' -> ' || e.server,
    'is slow: round-trip time at least ' || as_ms(t.least_rtt_ns) AS what,
    'Network between ' || e.client || ' and ' || e.server || ' ' || what,
    'Of ' || as_ms(e.p50_ns) || ' that a call takes (p50) a round trip takes ' || as_ms(t.least_rtt_ns) || ' at the least, usually '
        || as_ms(t.rtt_p50_ns) || '; ' || e.server || ' itself was not recorded.',
    'select * from edge where client = ''' || e.client || ''' and server = ''' || e.server || '''',
    0.8, (e.request_count * t.least_rtt_ns)::BIGINT, l.first_ns, l.last_ns, [e.client, e.server],
    [e.client || ' -> ' || e.server], k.links
FROM edge AS e
JOIN _tcp AS t ON t.client_name = e.client AND t.server_name = e.server
LEFT JOIN _lost AS l ON l.client_name = e.client AND l.server_name = e.server
LEFT JOIN _link AS k ON k.client_name = e.client AND k.server_name = e.server
WHERE e.joined_count < 10 AND e.request_count >= 10 AND e.server_namespace IS NOT NULL
    AND t.least_rtt_ns >= 1000000 * getvariable('slow_network_ms') AND t.least_rtt_ns >= 0.3 * e.p50_ns
    AND coalesce(l.resent, 0) < getvariable('lossy_link_ratio')
