-- One row: one request seen from one side (the client's socket, the server's socket, or the wire).
-- Inputs: _request, connection, connection_identity
-- Columns:
--   request_id BIGINT: unique in the bundle.
--   node VARCHAR: node that recorded it.
--   connection_id BIGINT: connection.connection_id.
--   protocol VARCHAR: protocol, as in PROTOCOLS.
--   side VARCHAR: who saw it: client, server or wire.
--   start_ns BIGINT: first byte of the request, ns since 1970; of a reply without its request the reply's.
--   request_end_ns BIGINT: last byte of the request. NULL when the request was not seen.
--   response_start_ns BIGINT: first byte of the response. NULL when none was seen.
--   end_ns BIGINT: last byte of the response. NULL when none was seen.
--   latency_ns BIGINT: first request byte to last response byte. NULL when either was not seen.
--   ttfb_ns BIGINT: first request byte to first response byte. NULL when either was not seen.
--   request_bytes BIGINT: bytes of the request. NULL when not seen.
--   response_bytes BIGINT: bytes of the response. NULL when not seen.
--   operation VARCHAR: method, command or API name. NULL when not seen.
--   resource VARCHAR: the thing acted on, normalised. NULL when the protocol or this request names none.
--   statement VARCHAR: the text as seen. NULL when there is none.
--   status VARCHAR: the code as the protocol writes it. NULL when no response was seen.
--   is_error BOOLEAN: the request failed.
--   error_kind VARCHAR: client, server, timeout, reset or protocol. NULL when it did not fail.
--   outcome VARCHAR: complete, one_way, no_response, no_request or truncated.
--   lost_bytes BIGINT: bytes of it that the recording does not have.
--   stream_id BIGINT: the protocol's own number (stream, correlation or transaction id). NULL when it has none.
--   pid INTEGER: process that moved the request's first byte. NULL when seen on the wire.
--   tid INTEGER: its thread. NULL when seen on the wire.
--   trace_id VARCHAR: trace id carried. NULL when none.
--   span_id VARCHAR: span id carried. NULL when none.
--   parent_span_id VARCHAR: parent span id carried. NULL when none.
--   client_ip VARCHAR: address of the client.
--   client_port INTEGER: port of the client.
--   server_ip VARCHAR: address of the server as this side saw it.
--   server_port INTEGER: port of the server.
--   client_pod VARCHAR: pod of the client. NULL when it is no pod.
--   client_container VARCHAR: container of the client. NULL when it is none, or not known which of its pod's.
--   client_workload VARCHAR: workload of the client. NULL when it is no pod.
--   client_namespace VARCHAR: namespace of the client. NULL when it is no pod.
--   client_node VARCHAR: node of the client. NULL when not known.
--   client_version VARCHAR: version of the client's workload. NULL when not known.
--   client_name VARCHAR: what reports call the client.
--   server_pod VARCHAR: pod of the server. NULL when it is no pod.
--   server_container VARCHAR: container of the server. NULL when it is none, or not known which of its pod's.
--   server_workload VARCHAR: workload of the server. NULL when it is no pod.
--   server_namespace VARCHAR: namespace of the server. NULL when it is no pod.
--   server_node VARCHAR: node of the server. NULL when not known.
--   server_version VARCHAR: version of the server's workload. NULL when not known.
--   server_service VARCHAR: service called. NULL when none is known.
--   server_name VARCHAR: what reports call the server.
--   error_message VARCHAR: what the server said. NULL when nothing.
--   rows_sent BIGINT: rows of the result. NULL when the protocol has none.
--   rows_affected BIGINT: rows changed. NULL when the protocol has none.
--   parameters VARCHAR: bound values as JSON text. NULL when none.
--   attributes VARCHAR: more, as JSON text, by protocol. NULL when nothing.
--   inferred VARCHAR: columns whose value was concluded from elsewhere. NULL when none.
--   request_position BIGINT: stream position of the request. NULL when not seen.
--   response_position BIGINT: stream position of the response. NULL when not seen.
--   response_tid INTEGER: thread that moved the response's first byte. NULL when not known.
SELECT
    r.request_id, r.node::VARCHAR AS node, r.connection_id, r.protocol::VARCHAR AS protocol, r.side::VARCHAR AS side,
    r.start_ns, r.request_end_ns, r.response_start_ns, r.end_ns, r.latency_ns, r.ttfb_ns, r.request_bytes,
    r.response_bytes, r.operation, r.resource, r.statement, r.status, r.is_error, r.error_kind, r.outcome,
    r.lost_bytes, r.stream_id, r.pid, r.tid, r.trace_id, r.span_id, r.parent_span_id,
    r.client_ip, r.client_port, r.server_ip, r.server_port,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.local_pod ELSE i.remote_pod END AS client_pod,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.local_container ELSE i.remote_container END AS client_container,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.local_workload ELSE i.remote_workload END AS client_workload,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.local_namespace ELSE i.remote_namespace END AS client_namespace,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.local_node ELSE i.remote_node END AS client_node,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.local_version ELSE i.remote_version END AS client_version,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.local_name ELSE i.remote_name END AS client_name,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_pod ELSE i.local_pod END AS server_pod,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_container ELSE i.local_container END AS server_container,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_workload ELSE i.local_workload END AS server_workload,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_namespace ELSE i.local_namespace END AS server_namespace,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_node ELSE i.local_node END AS server_node,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_version ELSE i.local_version END AS server_version,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_service ELSE i.local_service END AS server_service,
    CASE WHEN l.local_ip = r.client_ip AND l.local_port = r.client_port THEN i.remote_name ELSE i.local_name END AS server_name,
    r.error_message, r.rows_sent, r.rows_affected, r.parameters, r.attributes, r.inferred,
    r.request_position, r.response_position, r.response_tid
FROM _request AS r
JOIN connection AS l USING (connection_id)
JOIN connection_identity AS i USING (connection_id)
ORDER BY r.start_ns, r.request_id
