-- One row: the network seen by one entity: everything sent and received by its connections' ends that were recorded.
-- Inputs: connection_health, connection_identity, connection, tcp_sample, k8s_node
-- Columns:
--   dimension VARCHAR: namespace, node, node_pair, zone_pair, workload, service, pod, container, edge or connection.
--   name VARCHAR: its name; of an edge 'client -> server', of a pair 'a <-> b'.
--   connection_count BIGINT: connections.
--   rtt_p50_ns BIGINT: median of the round-trip times sampled, ns. NULL when none was.
--   rtt_p90_ns BIGINT: 90th percentile, ns. NULL when none was.
--   rtt_p95_ns BIGINT: 95th percentile, ns. NULL when none was.
--   rtt_p99_ns BIGINT: 99th percentile, ns. NULL when none was.
--   retransmit_count BIGINT: segments sent again.
--   retransmit_ratio DOUBLE: retransmit_count by data segments sent. NULL when nothing was sent.
--   sent_segments BIGINT: data segments sent.
--   drop_count BIGINT: packets the kernel dropped.
--   reset_count BIGINT: resets sent or received.
--   connect_count BIGINT: attempts to connect.
--   connect_failed_count BIGINT: those that failed.
--   sent_bytes BIGINT: bytes sent.
--   received_bytes BIGINT: bytes received.
WITH _end AS (
    SELECT h.*, i.local_namespace, i.local_node, i.local_workload, i.local_service, i.local_pod, i.local_container,
        least(i.local_node, i.remote_node) || ' <-> ' || greatest(i.local_node, i.remote_node) AS node_pair,
        least(a.zone, b.zone) || ' <-> ' || greatest(a.zone, b.zone) AS zone_pair, i.remote_node, a.zone AS local_zone, b.zone AS remote_zone
    FROM connection_health AS h JOIN connection_identity AS i USING (connection_id)
    LEFT JOIN k8s_node AS a ON a.name = i.local_node LEFT JOIN k8s_node AS b ON b.name = i.remote_node
),
_entity AS (
    SELECT 'namespace' AS dimension, local_namespace AS name, * FROM _end WHERE local_namespace IS NOT NULL
    UNION ALL
    SELECT 'node', local_node, * FROM _end WHERE local_node IS NOT NULL
    UNION ALL
    SELECT 'node_pair', node_pair, * FROM _end WHERE local_node IS NOT NULL AND remote_node IS NOT NULL
    UNION ALL
    SELECT 'zone_pair', zone_pair, * FROM _end WHERE local_zone IS NOT NULL AND remote_zone IS NOT NULL
    UNION ALL
    SELECT 'workload', local_name, * FROM _end
    UNION ALL
    SELECT 'service', coalesce(local_namespace || '/', '') || local_service, * FROM _end WHERE local_service IS NOT NULL
    UNION ALL
    SELECT 'pod', local_namespace || '/' || local_pod, * FROM _end WHERE local_pod IS NOT NULL
    UNION ALL
    SELECT 'container', local_namespace || '/' || local_pod || '/' || local_container, * FROM _end
    WHERE local_container IS NOT NULL
    UNION ALL
    SELECT 'edge', client_name || ' -> ' || server_name, * FROM _end
    UNION ALL
    SELECT 'connection', connection_id::VARCHAR, * FROM _end
),
_rtt AS (
    SELECT e.dimension, e.name, quantile_disc(s.srtt_ns, [0.50, 0.90, 0.95, 0.99]) AS q
    FROM _entity AS e JOIN tcp_sample AS s USING (connection_id)
    WHERE s.srtt_ns IS NOT NULL GROUP BY e.dimension, e.name
)
SELECT e.dimension, e.name, count(*) AS connection_count, any_value(r.q[1]) AS rtt_p50_ns, any_value(r.q[2]) AS rtt_p90_ns,
    any_value(r.q[3]) AS rtt_p95_ns, any_value(r.q[4]) AS rtt_p99_ns, sum(e.retransmit_count)::BIGINT AS retransmit_count,
    sum(e.retransmit_count) / nullif(sum(e.sent_segments), 0) AS retransmit_ratio,
    sum(e.sent_segments)::BIGINT AS sent_segments, sum(e.drop_count)::BIGINT AS drop_count,
    sum(e.reset_count)::BIGINT AS reset_count, sum(e.connect_count)::BIGINT AS connect_count,
    sum(e.connect_failed_count)::BIGINT AS connect_failed_count, sum(e.sent_bytes)::BIGINT AS sent_bytes,
    sum(e.received_bytes)::BIGINT AS received_bytes
FROM _entity AS e
LEFT JOIN _rtt AS r USING (dimension, name)
GROUP BY e.dimension, e.name
ORDER BY e.dimension, sum(e.sent_bytes) + sum(e.received_bytes) DESC, e.name
