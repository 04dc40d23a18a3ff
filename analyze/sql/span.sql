-- One row: one request placed in a causal tree: by the trace ids it carries, else by the thread that made it.
-- Inputs: logical_request, child_call, call, request
-- Columns:
--   trace_id VARCHAR: id of the trace as carried; of inferred trees 'inferred-' and the request_id of their root.
--   span_id VARCHAR: id of this span as carried, else its request_id.
--   parent_span_id VARCHAR: the span that caused it. NULL for a root.
--   request_id BIGINT: the request (logical_request.request_id).
--   basis VARCHAR: header (the parent's id was carried), thread (made by the thread that served the parent), root.
--   confidence DOUBLE: that the parent is right: 1 by header; by thread 0.95 where it served one request only, 0.8 where it had
--     just taken that one's bytes (child_call.basis turn), else 0.6 divided by the requests it was serving.
WITH _child AS (
    -- Both in terms of the joined request: one row whichever side saw it.
    SELECT p.request_id AS parent_id, l.request_id, c.start_ns, c.candidate_count, c.basis AS link_basis
    FROM child_call AS c
    JOIN call AS p ON p.server_request_id = c.parent_request_id
    JOIN call AS l ON l.client_request_id = c.request_id
),
_parent AS (
    SELECT r.request_id, r.trace_id, coalesce(r.span_id, r.parent_span_id, r.request_id::VARCHAR) AS span_id
    FROM request AS r WHERE r.request_id IN (SELECT request_id FROM call)
),
_link AS (
    SELECT r.request_id, r.trace_id, coalesce(r.span_id, r.request_id::VARCHAR) AS span_id, r.parent_span_id, c.parent_id, c.candidate_count, c.link_basis,
        p.trace_id AS parent_trace_id, p.span_id AS thread_parent_span_id
    FROM request AS r
    JOIN call AS k ON k.request_id = r.request_id
    LEFT JOIN _child AS c ON c.request_id = r.request_id
    LEFT JOIN _parent AS p ON p.request_id = c.parent_id
    QUALIFY row_number() OVER (PARTITION BY r.request_id ORDER BY c.start_ns DESC NULLS LAST) = 1
),
_root AS (
    -- The root of each inferred tree: parents that have none themselves, a few levels up.
    WITH RECURSIVE _up AS (
        SELECT request_id, request_id AS top, parent_id, 0 AS depth FROM _link
        UNION ALL
        SELECT u.request_id, u.parent_id, l.parent_id, u.depth + 1
        FROM _up AS u JOIN _link AS l ON l.request_id = u.parent_id WHERE u.depth < 16
    )
    SELECT request_id, arg_max(top, depth) AS top FROM _up GROUP BY request_id
)
SELECT coalesce(l.trace_id, l.parent_trace_id, 'inferred-' || r.top) AS trace_id, l.span_id,
    coalesce(l.parent_span_id, l.thread_parent_span_id) AS parent_span_id, l.request_id,
    CASE WHEN l.parent_span_id IS NOT NULL THEN 'header' WHEN l.parent_id IS NOT NULL THEN 'thread' ELSE 'root' END AS basis,
    (CASE WHEN l.parent_span_id IS NULL AND l.parent_id IS NOT NULL THEN
        CASE l.link_basis WHEN 'only' THEN 0.95 WHEN 'turn' THEN 0.8 ELSE 0.6 / l.candidate_count END ELSE 1 END)::DOUBLE
        AS confidence
FROM _link AS l JOIN _root AS r USING (request_id)
ORDER BY l.request_id
