-- One row: one connection with its network numbers over the recording.
-- Inputs: connection, connection_identity, tcp_event, tcp_sample, socket_data
-- Columns:
--   connection_id BIGINT: the connection.
--   transport VARCHAR: tcp or udp.
--   local_name VARCHAR: this end.
--   remote_name VARCHAR: the other end.
--   client_name VARCHAR: the client.
--   server_name VARCHAR: the server.
--   is_client BOOLEAN: this end is the client (or the capture saw the wire).
--   rtt_p50_ns BIGINT: median of the round-trip times sampled, ns. NULL when none was.
--   rtt_p95_ns BIGINT: 95th percentile, ns. NULL when none was.
--   rtt_p99_ns BIGINT: 99th percentile, ns. NULL when none was.
--   retransmit_count BIGINT: segments this end sent again (of the wire: either end).
--   sent_segments BIGINT: data segments this end sent (of the wire: either end).
--   drop_count BIGINT: packets the kernel dropped.
--   reset_count BIGINT: resets sent or received.
--   connect_count BIGINT: attempts to connect.
--   connect_failed_count BIGINT: those that failed.
--   sent_bytes BIGINT: bytes handed to the kernel by this end.
--   received_bytes BIGINT: bytes taken by this end.
--   first_ns BIGINT: first event, node's monotonic clock, ns. NULL when nothing happened.
--   last_ns BIGINT: last event, ns. NULL when nothing happened.
WITH _event AS (
    -- Of SYNs sent again the connect's result tells.
    SELECT connection_id, count(*) FILTER (kind = 'retransmit' AND coalesce(detail, '') NOT IN ('syn', 'synack'))
            AS retransmit_count,
        count(*) FILTER (kind = 'drop') AS drop_count,
        count(*) FILTER (kind IN ('reset_sent', 'reset_received')) AS reset_count,
        count(*) FILTER (kind = 'connect') AS connect_count,
        count(*) FILTER (kind = 'connect' AND detail <> 'ok') AS connect_failed_count,
        min(ts_ns) AS first_ns, max(ts_ns) AS last_ns
    FROM tcp_event GROUP BY connection_id
),
_sample AS (
    SELECT connection_id, quantile_disc(srtt_ns, 0.50) AS p50, quantile_disc(srtt_ns, 0.95) AS p95,
        quantile_disc(srtt_ns, 0.99) AS p99, max(sent_data_segments) AS most_segments, min(sent_data_segments) AS least_segments
    FROM tcp_sample GROUP BY connection_id
),
_data AS (
    SELECT connection_id, sum(size_bytes) FILTER (direction = 'send') AS sent_bytes,
        sum(size_bytes) FILTER (direction = 'receive') AS received_bytes,
        -- Where the kernel's count is absent: full segments of what was handed over, one at least a write.
        sum(greatest(1, size_bytes // 1448)) FILTER (direction = 'send' OR source = 'wire') AS segments,
        min(ts_ns) AS first_ns, max(ts_ns) AS last_ns
    FROM socket_data WHERE source <> 'tls' GROUP BY connection_id
)
SELECT c.connection_id, c.transport::VARCHAR AS transport, i.local_name, i.remote_name,
    CASE WHEN c.side = 'server' THEN i.remote_name ELSE i.local_name END AS client_name,
    CASE WHEN c.side = 'server' THEN i.local_name ELSE i.remote_name END AS server_name,
    c.side <> 'server' AS is_client, s.p50 AS rtt_p50_ns, s.p95 AS rtt_p95_ns, s.p99 AS rtt_p99_ns,
    coalesce(e.retransmit_count, 0) AS retransmit_count,
    greatest(coalesce(CASE WHEN c.existed_before THEN s.most_segments - s.least_segments ELSE s.most_segments END, 0),
        coalesce(d.segments, 0))::BIGINT AS sent_segments,
    coalesce(e.drop_count, 0) AS drop_count, coalesce(e.reset_count, 0) AS reset_count,
    coalesce(e.connect_count, 0) AS connect_count, coalesce(e.connect_failed_count, 0) AS connect_failed_count,
    coalesce(d.sent_bytes, 0)::BIGINT AS sent_bytes, coalesce(d.received_bytes, 0)::BIGINT AS received_bytes,
    least(e.first_ns, d.first_ns) AS first_ns, greatest(e.last_ns, d.last_ns) AS last_ns
FROM connection AS c
JOIN connection_identity AS i USING (connection_id)
LEFT JOIN _event AS e USING (connection_id)
LEFT JOIN _sample AS s USING (connection_id)
LEFT JOIN _data AS d USING (connection_id)
