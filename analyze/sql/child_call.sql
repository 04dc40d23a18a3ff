-- One row: one call that a thread made while it served a request.
-- Inputs: request, call, connection, manifest_node
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
--   candidate_count BIGINT: requests the thread was serving when it made the call.
--   basis VARCHAR: only (it was serving no other), turn (of several the one whose bytes, or whose last call's answer, it had taken
--     just before: an event loop reacts to what it reads), guess (of several the one taken last).
WITH _handing AS (
    SELECT node, pid FROM request WHERE side = 'server' AND tid IS NOT NULL AND response_tid IS NOT NULL AND pid IS NOT NULL
    GROUP BY node, pid HAVING count(*) FILTER (response_tid <> tid) > 0.2 * count(*)
),
_parent AS (
    SELECT request_id, node, tid, start_ns, coalesce(request_end_ns, start_ns) AS taken_ns, end_ns, response_start_ns, response_tid, server_name,
        concat_ws(' ', operation, resource) AS endpoint
    FROM request
    -- Where whoever takes a request seldom answers it (goroutines, worker threads), the thread says nothing about the call.
    WHERE side = 'server' AND tid IS NOT NULL AND end_ns IS NOT NULL AND coalesce(response_tid, tid) = tid
        AND NOT EXISTS (SELECT 1 FROM _handing AS h WHERE h.node = request.node AND h.pid = request.pid)
        AND protocol IN ('http1', 'http2', 'grpc', 'dubbo', 'thrift', 'fastcgi', 'kafka', 'rocketmq', 'amqp')
),
_child AS (
    SELECT r.request_id, r.node, r.tid, r.start_ns, r.end_ns, r.response_tid, r.protocol, r.server_name, r.operation, r.resource, r.latency_ns,
        -- A connection made for the call was asked for earlier than its first bytes could be sent.
        CASE WHEN row_number() OVER (PARTITION BY r.connection_id ORDER BY r.start_ns) = 1
            THEN coalesce(c.start_ns + m.clock_offset_ns, r.start_ns) ELSE r.start_ns END AS decided_ns
    FROM request AS r JOIN connection AS c USING (connection_id) JOIN manifest_node AS m ON m.node = r.node
    WHERE r.side = 'client' AND r.tid IS NOT NULL
),
_begun AS (
    SELECT node, tid, start_ns, row_number() OVER (PARTITION BY node, tid ORDER BY start_ns) AS begun FROM _parent
),
_ended AS (
    SELECT node, tid, end_ns, row_number() OVER (PARTITION BY node, tid ORDER BY end_ns) AS ended FROM _parent
),
_pair AS (
    SELECT p.request_id AS parent_id, c.*, greatest(1, b.begun - coalesce(e.ended, 0)) AS candidate_count
    FROM _child AS c
    -- The request the thread had taken last before the call, if it was still being served.
    ASOF JOIN _parent AS p ON p.node = c.node AND p.tid = c.tid AND p.start_ns <= c.start_ns
    ASOF JOIN _begun AS b ON b.node = c.node AND b.tid = c.tid AND b.start_ns <= c.start_ns
    ASOF LEFT JOIN _ended AS e ON e.node = c.node AND e.tid = c.tid AND e.end_ns < c.start_ns
    WHERE c.start_ns <= p.end_ns OR b.begun > coalesce(e.ended, 0)
),
_crowded AS (SELECT DISTINCT node, tid FROM _pair WHERE candidate_count > 1),
_event AS (
    -- What such a thread took in and gave out, in order.
    SELECT node, tid, taken_ns AS at_ns, true AS is_taken, request_id AS parent_id, NULL::BIGINT AS child_id FROM _parent
    UNION ALL
    SELECT node, tid, end_ns, true, NULL, request_id FROM _child WHERE end_ns IS NOT NULL AND coalesce(response_tid, tid) = tid
    UNION ALL
    SELECT node, tid, decided_ns, false, NULL, request_id FROM _child
    UNION ALL
    SELECT node, tid, response_start_ns, false, request_id, NULL FROM _parent WHERE coalesce(response_tid, tid) = tid
),
_taken AS (
    SELECT * FROM (
        -- Two taken in a row: which of them the next call is about cannot be told.
        SELECT *, coalesce(lag(is_taken) OVER (PARTITION BY node, tid ORDER BY at_ns, is_taken DESC), false) AS is_double
        FROM _event JOIN _crowded USING (node, tid))
    WHERE is_taken
),
_turn AS (
    SELECT c.request_id, c.start_ns, CASE WHEN NOT t.is_double THEN t.parent_id END AS parent_id, CASE WHEN NOT t.is_double THEN t.child_id END AS before_id
    FROM _child AS c JOIN _crowded AS k USING (node, tid)
    ASOF JOIN _taken AS t ON t.node = c.node AND t.tid = c.tid AND t.at_ns <= c.decided_ns
),
_chain AS (
    -- A call after a call is about what that one was about.
    WITH RECURSIVE _back AS (
        SELECT request_id, start_ns, parent_id, before_id, 0 AS depth FROM _turn
        UNION ALL
        SELECT b.request_id, b.start_ns, t.parent_id, t.before_id, b.depth + 1
        FROM _back AS b JOIN _turn AS t ON t.request_id = b.before_id WHERE b.parent_id IS NULL AND b.depth < 200
    )
    SELECT b.request_id, b.parent_id FROM _back AS b JOIN _parent AS p ON p.request_id = b.parent_id
    -- It was being served still.
    WHERE b.start_ns BETWEEN p.start_ns AND p.end_ns
)
SELECT p.request_id AS parent_request_id, c.request_id, p.server_name AS server, p.endpoint, c.protocol,
    c.server_name AS callee, c.operation, c.resource, c.start_ns, c.latency_ns, c.candidate_count,
    CASE WHEN c.candidate_count = 1 THEN 'only' WHEN t.parent_id IS NOT NULL THEN 'turn' ELSE 'guess' END AS basis
FROM _pair AS c
LEFT JOIN _chain AS t ON t.request_id = c.request_id AND c.candidate_count > 1
JOIN _parent AS p ON p.request_id = coalesce(t.parent_id, c.parent_id)
WHERE c.start_ns <= p.end_ns
ORDER BY p.request_id, c.start_ns
