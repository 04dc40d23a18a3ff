-- One row: one CPU sample of the thread that served a request, while it did.
-- Inputs: request, stack_sample, stack, manifest_node
-- Columns:
--   request_id BIGINT: the request as its server saw it (request.request_id).
--   node VARCHAR: name of the server's node.
--   pid INTEGER: the server's process.
--   at_ns BIGINT: when, ns since 1970.
--   stack_id BIGINT: stack.stack_id.
--   function VARCHAR: the innermost function. NULL when not known.
--   weight_ns BIGINT: CPU time the sample stands for, ns.
WITH _sample AS (
    SELECT s.node, s.pid, s.tid, s.ts_ns + m.clock_offset_ns AS at_ns, s.stack_id, s.weight_ns
    FROM stack_sample AS s JOIN manifest_node AS m ON m.node = s.node
),
_served AS (
    SELECT request_id, node, tid, start_ns, end_ns FROM request
    WHERE side = 'server' AND tid IS NOT NULL AND end_ns IS NOT NULL AND coalesce(response_tid, tid) = tid
),
_last AS (
    -- Of pipelined requests the one taken last.
    SELECT s.*, r.request_id, r.end_ns
    FROM _sample AS s ASOF JOIN _served AS r ON r.node = s.node AND r.tid = s.tid AND r.start_ns <= s.at_ns
)
SELECT l.request_id, l.node::VARCHAR AS node, l.pid, l.at_ns, l.stack_id, f.symbol AS function, l.weight_ns
FROM _last AS l LEFT JOIN stack AS f ON f.node = l.node AND f.stack_id = l.stack_id AND f.depth = 0
WHERE l.at_ns < l.end_ns
ORDER BY l.request_id, l.at_ns
