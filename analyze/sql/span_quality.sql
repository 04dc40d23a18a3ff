-- One row: how often the parents inferred from threads are right, checked where requests carry trace ids; by server.
-- Inputs: child_call, request
-- Columns:
--   server VARCHAR: who served the parents.
--   carried_count BIGINT: calls whose trace id is that of a request the same process was serving: the truth.
--   inferred_count BIGINT: calls with an inferred parent, guesses left out (child_call.basis), where both carry a trace id.
--   right_count BIGINT: of these, those of one trace.
--   guess_count BIGINT: calls whose parent is a guess.
--   guess_right_count BIGINT: of these, those of one trace.
--   precision DOUBLE: right_count of inferred_count. NULL without any.
--   recall DOUBLE: share of carried_count with the right parent inferred. NULL without any.
WITH _parent AS (
    SELECT request_id, node, pid, trace_id, start_ns, end_ns, server_name FROM request
    WHERE side = 'server' AND trace_id IS NOT NULL AND end_ns IS NOT NULL
),
_call AS (SELECT request_id, node, pid, trace_id, start_ns FROM request WHERE side = 'client' AND trace_id IS NOT NULL),
_truth AS (
    SELECT c.request_id, any_value(p.server_name) AS server
    FROM _call AS c
    JOIN _parent AS p ON p.trace_id = c.trace_id AND p.node = c.node AND p.pid = c.pid
        AND c.start_ns BETWEEN p.start_ns AND p.end_ns
    GROUP BY c.request_id
),
_inferred AS (
    SELECT c.request_id, p.server_name AS server, p.trace_id = c.trace_id AS is_right, l.basis = 'guess' AS is_guess
    FROM child_call AS l
    JOIN _parent AS p ON p.request_id = l.parent_request_id
    JOIN _call AS c ON c.request_id = l.request_id
),
_counted AS (
    SELECT coalesce(t.server, i.server) AS server, count(t.request_id) AS carried, count(i.request_id) FILTER (NOT i.is_guess) AS inferred,
        count(*) FILTER (i.is_right AND NOT i.is_guess) AS correct, count(*) FILTER (i.is_right AND NOT i.is_guess AND t.request_id IS NOT NULL) AS found,
        count(*) FILTER (i.is_guess) AS guesses, count(*) FILTER (i.is_guess AND i.is_right) AS guesses_right
    FROM _truth AS t FULL JOIN _inferred AS i USING (request_id)
    GROUP BY ALL
)
SELECT server, carried AS carried_count, inferred AS inferred_count, correct AS right_count, guesses AS guess_count, guesses_right AS guess_right_count,
    correct / nullif(inferred, 0) AS precision, found / nullif(carried, 0) AS recall
FROM _counted ORDER BY server
