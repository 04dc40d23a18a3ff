-- One row: one connection whose other end's own socket was recorded too, on whichever node.
-- Inputs: connection, socket_data
-- Columns:
--   connection_id BIGINT: the connection.
--   peer_id BIGINT: connection_id of the other end.
--   basis VARCHAR: address (each has the other's addresses) or position (through NAT: the same sequence numbers).
WITH _address AS (
    -- A loopback address means another machine in each namespace.
    SELECT c.connection_id, m.connection_id AS peer_id
    FROM connection AS c
    JOIN connection AS m
        ON m.transport = c.transport AND m.local_ip = c.remote_ip AND m.local_port = c.remote_port
        AND m.remote_ip = c.local_ip AND m.remote_port = c.local_port AND m.connection_id <> c.connection_id
        AND ((c.node = m.node AND c.netns_id = m.netns_id) OR NOT (c.local_ip LIKE '127.%' OR c.local_ip = '::1'))
    QUALIFY row_number() OVER (
        PARTITION BY c.connection_id ORDER BY abs(coalesce(c.start_ns, 0) - coalesce(m.start_ns, 0)), m.connection_id) = 1
),
_span AS (
    -- Where the bytes of each direction begin and end. Of a connection older than the recording this is where it was
    -- joined, and of one under way then, or as the recording ended, one end may have seen more than the other.
    SELECT d.connection_id, min(d.position) FILTER (d.direction = 'send') & 4294967295 AS sent,
        min(d.position) FILTER (d.direction = 'receive') & 4294967295 AS received,
        max(d.position + d.size_bytes) FILTER (d.direction = 'send') & 4294967295 AS sent_to,
        max(d.position + d.size_bytes) FILTER (d.direction = 'receive') & 4294967295 AS received_to
    FROM socket_data AS d JOIN connection AS c USING (connection_id)
    WHERE d.source = 'socket' AND c.transport = 'tcp' AND c.connection_id NOT IN (SELECT connection_id FROM _address)
    GROUP BY d.connection_id
),
_position AS (
    SELECT a.connection_id, b.connection_id AS peer_id
    FROM _span AS a
    JOIN _span AS b ON a.sent = b.received AND a.received = b.sent AND a.connection_id <> b.connection_id
    -- 64 bits that agree twice are no chance; if they are, nothing is said.
    QUALIFY count(*) OVER (PARTITION BY a.connection_id) = 1
),
_last AS (
    SELECT a.connection_id, b.connection_id AS peer_id
    FROM _span AS a
    JOIN _span AS b ON a.sent_to = b.received_to AND a.received_to = b.sent_to AND a.connection_id <> b.connection_id
    WHERE a.connection_id NOT IN (SELECT connection_id FROM _position) AND b.connection_id NOT IN (SELECT connection_id FROM _position)
    QUALIFY count(*) OVER (PARTITION BY a.connection_id) = 1
)
SELECT connection_id, peer_id, 'address' AS basis FROM _address
UNION ALL
SELECT connection_id, peer_id, 'position' FROM _position
UNION ALL
SELECT connection_id, peer_id, 'position' FROM _last
ORDER BY connection_id
