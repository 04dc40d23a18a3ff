-- One row: one call that a thread made while it served a request.
-- Inputs: request, call
-- Columns:
--   parent_request_id BIGINT: the request served, as the server saw it.
--   request_id BIGINT: the call made meanwhile, as the caller saw it.
--   server VARCHAR: who serves the parent.
--   endpoint VARCHAR: operation and resource of the parent.
--   protocol VARCHAR: protocol of the call.
--   callee VARCHAR: who is called.
--   operation VARCHAR: operation of the call. NULL when not known.
--   resource VARCHAR: resource of the call. NULL when not known.
--   start_ns BIGINT: start of the call, ns since 1970.
--   latency_ns BIGINT: latency of the call, ns. NULL when unanswered.
WITH _parent AS (
    SELECT request_id, node, tid, start_ns, end_ns, server_name, concat_ws(' ', operation, resource) AS endpoint
    FROM request
    WHERE side = 'server' AND tid IS NOT NULL AND end_ns IS NOT NULL
        AND protocol IN ('http1', 'http2', 'grpc', 'dubbo', 'thrift', 'fastcgi', 'kafka', 'rocketmq', 'amqp')
),
_child AS (
    SELECT request_id, node, tid, start_ns, protocol, server_name, operation, resource, latency_ns
    FROM request WHERE side = 'client' AND tid IS NOT NULL
)
SELECT p.request_id AS parent_request_id, c.request_id, p.server_name AS server, p.endpoint, c.protocol,
    c.server_name AS callee, c.operation, c.resource, c.start_ns, c.latency_ns
FROM _child AS c
-- The request the thread had taken last before the call, if it was still being served.
ASOF JOIN _parent AS p ON p.node = c.node AND p.tid = c.tid AND p.start_ns <= c.start_ns
WHERE c.start_ns <= p.end_ns
ORDER BY p.request_id, c.start_ns
