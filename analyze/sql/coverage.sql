-- One row: one connection as one source saw it: what was seen, lost and understood.
-- Inputs: _coverage, connection
-- Columns:
--   node VARCHAR: node that recorded it.
--   connection_id BIGINT: the connection.
--   transport VARCHAR: tcp or udp.
--   source VARCHAR: socket, tls or wire.
--   local_ip VARCHAR: this end's address.
--   local_port INTEGER: this end's port.
--   remote_ip VARCHAR: the other end's address.
--   remote_port INTEGER: the other end's port.
--   protocol VARCHAR: protocol decoded. NULL where none fits.
--   protocols VARCHAR: all protocols spoken in turn, comma separated. NULL where none fits.
--   score DOUBLE: how well the protocol fits, 0 to 1.
--   runner_up VARCHAR: next best protocol. NULL where no other fits at all.
--   runner_up_score DOUBLE: its score.
--   request_count BIGINT: rows of request.
--   frame_count BIGINT: frames decoded.
--   total_bytes BIGINT: bytes of both streams, missing ones included.
--   seen_bytes BIGINT: bytes captured.
--   lost_bytes BIGINT: bytes the recorder or the capture lost.
--   truncated_bytes BIGINT: bytes left out by the payload policy.
--   encrypted_bytes BIGINT: bytes captured that cannot be read.
--   undecoded_bytes BIGINT: bytes captured that are in no frame.
SELECT
    c.node, c.connection_id, c.transport, v.source, c.local_ip, c.local_port, c.remote_ip, c.remote_port,
    v.protocol, v.protocols, v.score, v.runner_up, v.runner_up_score, v.request_count, v.frame_count,
    v.total_bytes, v.seen_bytes, v.lost_bytes, v.truncated_bytes, v.encrypted_bytes, v.undecoded_bytes
FROM _coverage AS v
JOIN connection AS c USING (connection_id)
ORDER BY c.connection_id, v.source
