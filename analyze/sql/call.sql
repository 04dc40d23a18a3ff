-- One row: one request after its views are joined: client's and server's, and those of sidecar proxies between them. A
-- request seen from one side only has a row too.
-- Inputs: hop, proxy_hop
-- Columns:
--   request_id BIGINT: the client's row where there is one, else the server's or the wire's.
--   client_request_id BIGINT: the client's row. NULL when not seen from there.
--   server_request_id BIGINT: the server's row; behind sidecars that of the program, not of the proxy. NULL when not seen
--     from there.
--   start_ns BIGINT: start of the request, ns since 1970.
--   client_latency_ns BIGINT: latency as the client saw it (or the wire). NULL when not seen or unanswered.
--   server_latency_ns BIGINT: latency as the server saw it. NULL when not seen from there.
--   network_ns BIGINT: client latency less the server's and the sidecars': network, queues and both kernels; with the
--     sidecars' part where proxy_ns is not known. NULL unless both latencies are known.
--   join_basis VARCHAR: position (same bytes at both ends), order (same five-tuple and order), proxy (through sidecars) or
--     none.
--   proxy_count BIGINT: sidecars it came through, 0 without.
--   proxy_ns BIGINT: time in the sidecars, ns. NULL without, or when the way between them is encrypted.
--   callee_request_id BIGINT: the row that names the server: the server's own, else that of the last hop seen.
--   callee_connection_id BIGINT: the connection whose other end is the server, where a sidecar's way to it could not be read.
--     NULL otherwise.
--   caller_connection_id BIGINT: the connection whose other end is the client, where the way to the server's sidecar could
--     not be read. NULL otherwise.
WITH RECURSIVE _link AS (
    SELECT request_id, next_request_id, proxy_count, proxy_ns FROM proxy_hop
    WHERE request_id IS NOT NULL AND next_request_id IS NOT NULL
),
_chain AS (
    SELECT request_id, request_id AS last_id, 0::BIGINT AS proxy_count, 0::BIGINT AS proxy_ns, 0 AS depth
    FROM _link WHERE request_id NOT IN (SELECT next_request_id FROM _link)
    UNION ALL
    SELECT c.request_id, l.next_request_id, c.proxy_count + l.proxy_count, c.proxy_ns + l.proxy_ns, c.depth + 1
    -- More proxies in a row than anybody has.
    FROM _chain AS c JOIN _link AS l ON l.request_id = c.last_id WHERE c.depth < 8
),
_folded AS (
    SELECT * FROM _chain QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY depth DESC) = 1
),
_alone AS (
    SELECT request_id, request_id AS last_id, NULL AS proxy_count, NULL AS proxy_ns FROM hop
    WHERE request_id NOT IN (SELECT request_id FROM _link) AND request_id NOT IN (SELECT next_request_id FROM _link)
),
_all AS (
    SELECT request_id, last_id, proxy_count, proxy_ns FROM _folded
    UNION ALL
    SELECT * FROM _alone
),
_first AS (
    -- Of a client that was not recorded its sidecar knows best how long it waited.
    SELECT * REPLACE (CASE WHEN request_id IN (SELECT request_id FROM _link) THEN coalesce(client_latency_ns, server_latency_ns)
        ELSE client_latency_ns END AS client_latency_ns) FROM hop
),
_way AS (
    SELECT request_id, next_request_id, connection_id, proxy_count FROM proxy_hop
    WHERE request_id IS NULL OR next_request_id IS NULL
)
SELECT a.request_id, f.client_request_id, l.server_request_id, f.start_ns, f.client_latency_ns, l.server_latency_ns,
    CASE WHEN a.proxy_count IS NULL THEN f.network_ns
        WHEN f.client_latency_ns < l.server_latency_ns THEN 0
        ELSE f.client_latency_ns - l.server_latency_ns - least(coalesce(a.proxy_ns, 0), f.client_latency_ns - l.server_latency_ns)
        END AS network_ns,
    CASE WHEN a.proxy_count IS NULL THEN f.join_basis ELSE 'proxy' END AS join_basis,
    coalesce(a.proxy_count, 0) + coalesce(o.proxy_count, 0) + coalesce(i.proxy_count, 0) AS proxy_count,
    -- Clocks are read one after the other: a few ns may be in both.
    CASE WHEN f.client_latency_ns < l.server_latency_ns AND a.proxy_ns IS NOT NULL THEN 0
        WHEN l.server_latency_ns IS NULL THEN a.proxy_ns
        WHEN a.proxy_ns IS NOT NULL THEN least(a.proxy_ns, f.client_latency_ns - l.server_latency_ns) END AS proxy_ns,
    CASE WHEN o.request_id IS NULL THEN coalesce(l.server_request_id, l.request_id) ELSE l.request_id END AS callee_request_id,
    o.connection_id AS callee_connection_id, i.connection_id AS caller_connection_id
FROM _all AS a
JOIN _first AS f ON f.request_id = a.request_id
JOIN hop AS l ON l.request_id = a.last_id
LEFT JOIN _way AS o ON o.request_id = a.last_id
LEFT JOIN _way AS i ON i.next_request_id = a.request_id
