-- Packets between two workloads are lost: their data is sent again far more often than a healthy network needs.
-- Inputs: connection_health, connection_identity, connection, edge, k8s_node
-- Kind: root
-- Effect: slowness
-- Rollup: yes
WITH _end AS (
    -- The far end's pod is named where the loss keeps to one of several.
    SELECT h.client_name, h.server_name,
        CASE WHEN h.is_client THEN i.remote_pod ELSE i.local_pod END AS server_pod,
        i.local_namespace || '/' || i.local_pod AS pod, i.remote_namespace || '/' || i.remote_pod AS other,
        h.retransmit_count, h.sent_segments, h.rtt_p95_ns, realtime_ns(c.node, h.first_ns) AS first_ns, realtime_ns(c.node, h.last_ns) AS last_ns
    FROM connection_health AS h JOIN connection_identity AS i USING (connection_id) JOIN connection AS c USING (connection_id)
    WHERE h.transport = 'tcp'
),
_pod AS (
    SELECT client_name, server_name, server_pod, sum(retransmit_count) AS resent, sum(sent_segments) AS sent
    FROM _end GROUP BY ALL
),
_spread AS (
    SELECT client_name, server_name, count(*) AS pod_count, arg_max(server_pod, resent) AS worst_pod,
        max(resent) / nullif(sum(resent), 0) AS worst_share, sum(sent) FILTER (resent = 0) AS clean_segments
    FROM _pod GROUP BY ALL
),
_edge AS (
    SELECT client_name, server_name, sum(retransmit_count) AS resent, sum(sent_segments) AS sent,
        max(rtt_p95_ns) AS rtt_p95_ns, min(first_ns) AS first_ns, max(last_ns) AS last_ns,
        count(*) FILTER (retransmit_count > 0) AS hit_connections, count(*) AS connections
    FROM _end GROUP BY ALL
),
_link AS (
    SELECT client_name, server_name, list([pod, other]) AS links FROM (
        SELECT client_name, server_name, least(pod, other) AS pod, greatest(pod, other) AS other
        FROM _end WHERE pod IS NOT NULL AND other IS NOT NULL
        GROUP BY ALL HAVING sum(retransmit_count) / nullif(sum(sent_segments), 0) >= getvariable('lossy_link_ratio'))
    GROUP BY ALL
),
_wait AS (
    SELECT client, server, sum(network_total_ns) AS network_total_ns, max(network_p95_ns) AS network_p95_ns,
        max(server_p95_ns) AS server_p95_ns, sum(total_ns) AS total_ns
    FROM edge GROUP BY ALL
)
SELECT
    CASE WHEN e.resent / e.sent >= 0.02 THEN 'critical' ELSE 'warning' END AS severity,
    'edge' AS scope_kind,
    e.client_name || ' -> ' || e.server_name AS scope,
    'loses packets: ' || round(100 * e.resent / e.sent, 1) || ' % sent again' AS what,
    'Network between ' || e.client_name || ' and ' || e.server_name
        || CASE WHEN s.pod_count > 1 AND s.worst_share >= 0.9 THEN ' (pod ' || s.worst_pod || ')' ELSE '' END
        || ' ' || what AS title,
    e.resent || ' of about ' || e.sent || ' data segments were retransmitted, on ' || e.hit_connections || ' of '
        || e.connections || ' connection ends'
        || coalesce('; round-trip time p95 ' || as_ms(e.rtt_p95_ns), '')
        || coalesce('; the network part of calls is p95 ' || as_ms(w.network_p95_ns) || ' while the server itself needs '
            || as_ms(w.server_p95_ns), '') || '.' AS summary,
    'select * from tcp_event join connection_health using (connection_id) where kind = ''retransmit'' and client_name = '''
        || e.client_name || ''' and server_name = ''' || e.server_name || '''' AS evidence,
    least(0.99, 0.6 + e.resent / 100.0) AS confidence,
    coalesce(w.network_total_ns, w.total_ns, 0)::BIGINT AS impact_ns,
    e.first_ns, e.last_ns, [e.client_name, e.server_name] AS entities,
    [e.client_name || ' -> ' || e.server_name] AS explains, l.links
FROM _edge AS e
LEFT JOIN _spread AS s USING (client_name, server_name)
LEFT JOIN _link AS l USING (client_name, server_name)
LEFT JOIN _wait AS w ON w.client = e.client_name AND w.server = e.server_name
WHERE e.resent >= getvariable('lossy_link_min_retransmits') AND e.resent / e.sent >= getvariable('lossy_link_ratio')
