-- One row: one request at a sidecar proxy that it passed on, or that came through it: what the two hops of one call share.
-- A sidecar is told by what it does: another container of the pod is at the other end of one of the two connections, and
-- the same request goes out as came in. Where the way between two sidecars is encrypted, the connection is known by the
-- thread: an event loop writes in answer to what it read. Proxies of a whole node (ambient meshes) and a sidecar's answers to
-- DNS queries are not folded.
-- Inputs: hop, request, connection, connection_peer, connection_identity, socket_data, manifest_node
-- Columns:
--   request_id BIGINT: the hop that came in (hop.request_id). NULL when its bytes could not be read.
--   next_request_id BIGINT: the hop that went out (hop.request_id). NULL when its bytes could not be read.
--   connection_id BIGINT: the connection of the other hop, where nothing of it could be read. NULL otherwise.
--   proxy_count INTEGER: sidecars between the two hops: 1, or 2 with an encrypted way between them.
--   proxy_ns BIGINT: time in the sidecar, ns. NULL unless both hops were read and answered.
--   basis VARCHAR: content (the same request in and out of one process), encrypted (the same request at two sidecars that
--     talk to each other), thread (the connection only), address (the caller was redirected to its sidecar; its address says
--     where to).
WITH _within AS (
    SELECT c.connection_id,
        -- The caller's end has the address of whom it meant.
        coalesce(i.remote_basis, '') NOT IN ('socket', 'position') OR coalesce(j.remote_basis, '') NOT IN ('socket', 'position') AS is_redirected
    FROM connection AS c
    JOIN connection_peer AS p USING (connection_id)
    JOIN connection AS m ON m.connection_id = p.peer_id
    JOIN connection_identity AS i ON i.connection_id = c.connection_id
    JOIN connection_identity AS j ON j.connection_id = p.peer_id
    WHERE c.node = m.node AND c.netns_id = m.netns_id AND c.pid <> m.pid AND c.transport = 'tcp'
        AND i.local_pod = j.local_pod AND i.local_namespace = j.local_namespace
        AND i.local_container IS DISTINCT FROM j.local_container
),
_process AS (
    SELECT DISTINCT r.node, r.pid FROM request AS r JOIN _within USING (connection_id) WHERE r.pid IS NOT NULL
),
_row AS (
    SELECT request_id, client_request_id AS row_id, 'client' AS side FROM hop
    UNION ALL
    SELECT request_id, server_request_id, 'server' FROM hop
),
_seen AS (
    SELECT h.request_id, r.node, r.pid, r.tid, r.side, r.connection_id, r.operation, coalesce(r.statement, r.resource, '') AS said,
        CASE WHEN r.protocol IN ('http1', 'http2') THEN 'http' ELSE r.protocol END AS protocol, r.start_ns,
        r.end_ns, r.latency_ns, r.status, w.connection_id IS NOT NULL AS is_within, coalesce(w.is_redirected, false) AS is_redirected
    FROM request AS r
    JOIN _process AS q ON q.node = r.node AND q.pid = r.pid
    JOIN _row AS h ON h.row_id = r.request_id AND h.side = r.side
    LEFT JOIN _within AS w ON w.connection_id = r.connection_id
    WHERE r.protocol <> 'tls'
),
_came AS (SELECT * FROM _seen WHERE side = 'server'),
_went AS (SELECT * FROM _seen WHERE side = 'client'),
_way AS (
    -- Connections of sidecars to others that nothing could be read of.
    SELECT c.connection_id, c.node, c.pid, c.side, p.peer_id
    FROM connection AS c
    JOIN _process AS q ON q.node = c.node AND q.pid = c.pid
    LEFT JOIN connection_peer AS p USING (connection_id)
    WHERE c.transport = 'tcp' AND c.connection_id NOT IN (SELECT connection_id FROM _within)
        AND c.connection_id NOT IN (SELECT connection_id FROM request WHERE protocol <> 'tls')
),
_moved AS (
    SELECT d.node, d.tid, d.ts_ns + n.clock_offset_ns AS at_ns, d.connection_id, d.direction
    FROM socket_data AS d
    JOIN _way AS w USING (connection_id)
    JOIN manifest_node AS n ON n.node = d.node
    WHERE d.source = 'socket' AND w.side = CASE WHEN d.direction = 'send' THEN 'client' ELSE 'server' END
),
_out AS (
    SELECT c.request_id, d.connection_id AS way_id
    FROM _came AS c ASOF JOIN (SELECT * FROM _moved WHERE direction = 'send') AS d
        ON d.node = c.node AND d.tid = c.tid AND c.start_ns <= d.at_ns
    WHERE c.is_within AND d.at_ns <= c.end_ns
),
_in AS (
    SELECT g.request_id, d.connection_id AS way_id
    FROM _went AS g ASOF JOIN (SELECT * FROM _moved WHERE direction = 'receive') AS d
        ON d.node = g.node AND d.tid = g.tid AND g.start_ns >= d.at_ns
    -- What a proxy asks long after it read anything it asks for itself: a health check.
    WHERE g.is_within AND g.start_ns - d.at_ns < 1000000000
),
_meeting AS (
    SELECT DISTINCT k.node AS out_node, k.pid AS out_pid, w.node AS in_node, w.pid AS in_pid
    FROM _way AS k JOIN _way AS w ON w.connection_id = k.peer_id WHERE k.side = 'client'
),
_bucket AS (
    -- So that only requests of about the same time are set beside each other.
    SELECT *, unnest(range(start_ns // 20000000,
        least(coalesce(end_ns, start_ns + 20000000) // 20000000 + 1, start_ns // 20000000 + 1000))) AS bucket FROM _came
),
_nested AS (
    SELECT c.*, g.request_id AS next_request_id, g.node AS in_node, g.pid AS in_pid, g.is_within AS in_is_within,
        c.tid = g.tid AS is_same_thread, c.status IS NOT DISTINCT FROM g.status AS is_same_status,
        coalesce(c.latency_ns - g.latency_ns, 2 * (g.start_ns - c.start_ns)) AS slack_ns,
        c.latency_ns - g.latency_ns AS proxy_ns
    FROM _went AS g
    JOIN _bucket AS c ON c.bucket = g.start_ns // 20000000 AND c.protocol = g.protocol
        AND c.operation IS NOT DISTINCT FROM g.operation AND c.said = g.said AND c.start_ns <= g.start_ns
    -- A proxy answers for a server that does not, and passes nothing on to a caller who has gone.
    WHERE coalesce(g.end_ns <= c.end_ns, g.start_ns <= c.end_ns, true)
),
_pair AS (
    SELECT request_id, next_request_id, 1 AS proxy_count, is_same_status, is_same_thread AS is_agreed, slack_ns, proxy_ns
    FROM _nested WHERE node = in_node AND pid = in_pid AND (is_within OR in_is_within)
    UNION ALL
    SELECT n.request_id, n.next_request_id, 2, n.is_same_status, coalesce(p.peer_id = i.way_id, false), n.slack_ns, NULL
    FROM _nested AS n
    JOIN _meeting AS m ON m.out_node = n.node AND m.out_pid = n.pid AND m.in_node = n.in_node AND m.in_pid = n.in_pid
    LEFT JOIN _out AS o ON o.request_id = n.request_id
    LEFT JOIN connection_peer AS p ON p.connection_id = o.way_id
    LEFT JOIN _in AS i ON i.request_id = n.next_request_id
    WHERE n.is_within AND n.in_is_within
),
_ranked AS (
    -- Of equal requests under way at once: how closely one lies within the other, and what the threads say. Of a request
    -- tried again the try whose answer was passed on.
    SELECT *, rank() OVER (ORDER BY is_same_status DESC, slack_ns * CASE WHEN is_agreed THEN 1 ELSE 2 END, request_id, next_request_id) AS place
    FROM _pair
),
_best AS (
    SELECT * FROM _ranked
    QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY place) = 1
        AND row_number() OVER (PARTITION BY next_request_id ORDER BY place) = 1
),
_second AS (
    SELECT * FROM _ranked
    WHERE request_id NOT IN (SELECT request_id FROM _best) AND next_request_id NOT IN (SELECT next_request_id FROM _best)
    QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY place) = 1
        AND row_number() OVER (PARTITION BY next_request_id ORDER BY place) = 1
),
_both AS (
    SELECT * FROM _best
    UNION ALL
    SELECT * FROM _second
)
SELECT request_id, next_request_id, NULL::BIGINT AS connection_id, proxy_count,
    CASE WHEN proxy_ns < 0 THEN 0 ELSE proxy_ns END AS proxy_ns,
    CASE WHEN proxy_count = 1 THEN 'content' ELSE 'encrypted' END AS basis
FROM _both
UNION ALL
SELECT c.request_id, NULL, o.way_id, 1, NULL, CASE WHEN o.way_id IS NULL THEN 'address' ELSE 'thread' END
FROM _came AS c LEFT JOIN _out AS o USING (request_id)
WHERE c.is_within AND c.request_id NOT IN (SELECT request_id FROM _both) AND (o.way_id IS NOT NULL OR c.is_redirected)
UNION ALL
SELECT NULL, i.request_id, i.way_id, 1, NULL, 'thread' FROM _in AS i
WHERE i.request_id NOT IN (SELECT next_request_id FROM _both)
ORDER BY request_id, next_request_id
