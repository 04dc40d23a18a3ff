-- A server does not accept its connections as fast as they come: the kernel turns new ones away.
-- Inputs: protocol_counter, listener, connection, connection_identity
-- Kind: root
WITH _overflow AS (
    SELECT node, netns_id, max(value) - min(value) AS at_most, count(*) AS readings, min(ts_ns) AS first_ns, max(ts_ns) AS last_ns
    FROM protocol_counter WHERE counter IN ('TcpExt.ListenOverflows') GROUP BY node, netns_id
),
_start AS (
    -- A counter that was zero has no row until it changes.
    SELECT node, min(ts_ns) AS start_ns FROM protocol_counter GROUP BY node
),
_count AS (
    SELECT o.node, o.netns_id, o.first_ns, o.last_ns,
        o.at_most + CASE WHEN o.first_ns > s.start_ns + 500000000 THEN (
            SELECT min(value) FROM protocol_counter AS p WHERE p.node = o.node AND p.netns_id = o.netns_id
                AND p.counter = 'TcpExt.ListenOverflows') ELSE 0 END AS overflows
    FROM _overflow AS o JOIN _start AS s USING (node)
),
_name AS (
    SELECT c.node, c.netns_id, mode(i.local_name) AS name, mode(i.local_namespace || '/' || i.local_pod) AS pod
    FROM connection AS c JOIN connection_identity AS i USING (connection_id)
    WHERE c.side = 'server' GROUP BY ALL
),
_port AS (
    SELECT node, netns_id, arg_max(local_port, backlog_count) AS port, max(backlog_count) AS waiting, arg_max(backlog_max, backlog_count) AS most
    FROM listener WHERE transport = 'tcp' GROUP BY ALL
)
SELECT
    'critical' AS severity, 'pod' AS scope_kind, coalesce(n.pod, n.name, c.node) AS scope,
    coalesce(n.pod, n.name, 'a server on ' || c.node) || ' does not accept its connections fast enough: '
        || c.overflows || ' were turned away' AS title,
    'The accept queue was full' || coalesce(' (port ' || p.port || ', up to ' || p.waiting || ' waiting, limit ' || p.most || ')', '')
        || '; a client that is turned away tries again after 1, 3, 7 s and sees a slow or failing connect.' AS summary,
    'select * from protocol_counter where counter = ''TcpExt.ListenOverflows''' AS evidence, 0.95 AS confidence,
    (c.overflows * 1000000000)::BIGINT AS impact_ns, realtime_ns(c.node, c.first_ns) AS first_ns,
    realtime_ns(c.node, c.last_ns) AS last_ns, [coalesce(n.name, c.node)] AS entities,
    list_filter([n.pod, n.name], lambda x: x IS NOT NULL) AS explains
FROM _count AS c
LEFT JOIN _name AS n ON n.node = c.node AND n.netns_id = c.netns_id
LEFT JOIN _port AS p ON p.node = c.node AND p.netns_id = c.netns_id
WHERE c.overflows >= 3
