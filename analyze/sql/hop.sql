-- One row: one request on one connection after its two views are joined; a request seen from one side only has a row too.
-- Inputs: request, connection
-- Columns:
--   request_id BIGINT: the client's row where there is one, else the server's or the wire's.
--   client_request_id BIGINT: the client's row. NULL when not seen from there.
--   server_request_id BIGINT: the server's row. NULL when not seen from there.
--   start_ns BIGINT: start of the request, ns since 1970.
--   client_latency_ns BIGINT: latency as the client saw it (or the wire). NULL when not seen or unanswered.
--   server_latency_ns BIGINT: latency as the server saw it. NULL when not seen from there.
--   network_ns BIGINT: client latency less server latency: network, queues and both kernels. NULL unless both are known.
--   join_basis VARCHAR: position (same bytes at both ends), order (same five-tuple and order) or none.
WITH _side AS (
    SELECT r.*, c.transport,
        row_number() OVER (
            PARTITION BY r.side, r.protocol, r.client_ip, r.client_port, r.server_ip, r.server_port, r.operation, r.resource,
                r.stream_id
            ORDER BY r.start_ns, r.request_id) AS turn
    FROM request AS r JOIN connection AS c USING (connection_id)
),
_by_position AS (
    -- The same byte has the same sequence number at both ends, whatever NAT did to the addresses.
    SELECT c.request_id AS client_request_id, s.request_id AS server_request_id
    FROM _side AS c
    JOIN _side AS s
        ON c.side = 'client' AND s.side = 'server' AND c.transport = 'tcp' AND s.transport = 'tcp'
        AND c.protocol = s.protocol AND c.operation IS NOT DISTINCT FROM s.operation
        AND c.request_position & 4294967295 = s.request_position & 4294967295
        AND c.response_position & 4294967295 IS NOT DISTINCT FROM s.response_position & 4294967295
        AND c.stream_id IS NOT DISTINCT FROM s.stream_id
        AND (c.client_port = s.client_port OR c.server_port = s.server_port)
        AND c.statement IS NOT DISTINCT FROM s.statement
    QUALIFY row_number() OVER (PARTITION BY c.request_id
            ORDER BY c.client_ip = s.client_ip AND c.client_port = s.client_port DESC, abs(c.start_ns - s.start_ns)) = 1
        AND row_number() OVER (PARTITION BY s.request_id
            ORDER BY c.client_ip = s.client_ip AND c.client_port = s.client_port DESC, abs(c.start_ns - s.start_ns)) = 1
),
_by_order AS (
    SELECT c.request_id AS client_request_id, s.request_id AS server_request_id
    FROM _side AS c
    JOIN _side AS s
        ON c.side = 'client' AND s.side = 'server' AND c.protocol = s.protocol
        AND c.client_ip = s.client_ip AND c.client_port = s.client_port AND c.server_port = s.server_port
        AND c.operation IS NOT DISTINCT FROM s.operation AND c.resource IS NOT DISTINCT FROM s.resource
        AND c.stream_id IS NOT DISTINCT FROM s.stream_id AND c.turn = s.turn
        AND c.transport = 'udp' AND s.transport = 'udp'
    QUALIFY row_number() OVER (PARTITION BY c.request_id ORDER BY abs(c.start_ns - s.start_ns)) = 1
        AND row_number() OVER (PARTITION BY s.request_id ORDER BY abs(c.start_ns - s.start_ns)) = 1
),
_pair AS (
    SELECT *, 'position' AS join_basis FROM _by_position
    UNION ALL
    SELECT *, 'order' FROM _by_order
)
SELECT c.request_id, c.request_id AS client_request_id, s.request_id AS server_request_id, c.start_ns,
    c.latency_ns AS client_latency_ns, s.latency_ns AS server_latency_ns,
    -- Not greatest(): it leaves NULL out.
    CASE WHEN c.latency_ns < s.latency_ns THEN 0 ELSE c.latency_ns - s.latency_ns END AS network_ns, p.join_basis
FROM _pair AS p
JOIN request AS c ON c.request_id = p.client_request_id
JOIN request AS s ON s.request_id = p.server_request_id
UNION ALL
SELECT r.request_id, CASE WHEN r.side <> 'server' THEN r.request_id END,
    CASE WHEN r.side = 'server' THEN r.request_id END, r.start_ns,
    CASE WHEN r.side <> 'server' THEN r.latency_ns END, CASE WHEN r.side = 'server' THEN r.latency_ns END, NULL, 'none'
FROM request AS r
WHERE r.request_id NOT IN (SELECT client_request_id FROM _pair)
    AND r.request_id NOT IN (SELECT server_request_id FROM _pair)
