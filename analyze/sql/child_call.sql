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
--   candidate_count BIGINT: requests the thread was serving when it made the call; with several, which of them caused
--     it is a guess (the one taken last).
WITH _parent AS (
    SELECT request_id, node, tid, start_ns, end_ns, server_name, concat_ws(' ', operation, resource) AS endpoint
    FROM request
    WHERE side = 'server' AND tid IS NOT NULL AND end_ns IS NOT NULL
        AND protocol IN ('http1', 'http2', 'grpc', 'dubbo', 'thrift', 'fastcgi', 'kafka', 'rocketmq', 'amqp')
),
_child AS (
    SELECT request_id, node, tid, start_ns, protocol, server_name, operation, resource, latency_ns
    FROM request WHERE side = 'client' AND tid IS NOT NULL
),
_begun AS (
    SELECT node, tid, start_ns, row_number() OVER (PARTITION BY node, tid ORDER BY start_ns) AS begun FROM _parent
),
_ended AS (
    SELECT node, tid, end_ns, row_number() OVER (PARTITION BY node, tid ORDER BY end_ns) AS ended FROM _parent
)
SELECT p.request_id AS parent_request_id, c.request_id, p.server_name AS server, p.endpoint, c.protocol,
    c.server_name AS callee, c.operation, c.resource, c.start_ns, c.latency_ns,
    greatest(1, b.begun - coalesce(e.ended, 0)) AS candidate_count
FROM _child AS c
-- The request the thread had taken last before the call, if it was still being served.
ASOF JOIN _parent AS p ON p.node = c.node AND p.tid = c.tid AND p.start_ns <= c.start_ns
ASOF JOIN _begun AS b ON b.node = c.node AND b.tid = c.tid AND b.start_ns <= c.start_ns
ASOF LEFT JOIN _ended AS e ON e.node = c.node AND e.tid = c.tid AND e.end_ns < c.start_ns
WHERE c.start_ns <= p.end_ns
ORDER BY p.request_id, c.start_ns
