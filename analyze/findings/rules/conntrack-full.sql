-- The connection tracking table is full or nearly so: new connections are dropped.
-- Inputs: conntrack_sample, connection, connection_identity, connection_health
-- Kind: root
WITH _table AS (
    SELECT node, netns_id, max(entry_count) AS entries, any_value(entry_max) AS entry_max,
        max(coalesce(drop_count, 0)) - min(coalesce(drop_count, 0)) AS drops,
        max(coalesce(insert_failed_count, 0)) - min(coalesce(insert_failed_count, 0)) AS failed,
        max(coalesce(early_drop_count, 0)) - min(coalesce(early_drop_count, 0)) AS early, min(ts_ns) AS first_ns, max(ts_ns) AS last_ns
    FROM conntrack_sample GROUP BY ALL
),
_name AS (
    -- Each network namespace has its own table: of a pod's only the pod suffers, of the node's all that pass through it.
    SELECT c.node, c.netns_id, CASE WHEN count(DISTINCT i.local_pod) = 1 THEN any_value(i.local_name) END AS workload,
        CASE WHEN count(DISTINCT i.local_pod) = 1 THEN any_value(i.local_namespace || '/' || i.local_pod) END AS pod,
        list(DISTINCT i.local_name) AS names
    FROM connection AS c JOIN connection_identity AS i USING (connection_id)
    WHERE i.local_pod IS NOT NULL GROUP BY ALL
),
_all AS (SELECT local_node AS node, list(DISTINCT local_name) AS names FROM connection_identity WHERE local_pod IS NOT NULL GROUP BY local_node)
SELECT
    CASE WHEN drops + early > 0 OR entries >= entry_max THEN 'critical' ELSE 'warning' END AS severity, CASE WHEN n.pod IS NULL THEN 'node' ELSE 'pod' END AS scope_kind,
    coalesce(n.pod, t.node) AS scope,
    'The connection tracking table of ' || coalesce('pod ' || n.pod || ' on ', '') || 'node ' || t.node || ' is full: ' || entries || ' of ' || entry_max || ' entries'
        || CASE WHEN drops > 0 THEN ', ' || drops || ' packets dropped' ELSE '' END AS title,
    'New connections through NAT and services fail while old ones go on; ' || early || ' entries were thrown out early, '
        || failed || ' could not be inserted.' AS summary,
    'select * from conntrack_sample' AS evidence, 0.95 AS confidence, ((drops + 1) * 1000000000)::BIGINT AS impact_ns,
    realtime_ns(t.node, first_ns) AS first_ns, realtime_ns(t.node, last_ns) AS last_ns, [coalesce(n.workload, t.node)] AS entities,
    list_concat([t.node], CASE WHEN n.pod IS NULL THEN coalesce(a.names, []) ELSE [n.pod, n.workload] END,
        -- Connections to it are not made.
        (SELECT coalesce(list(DISTINCT h.client_name || ' -> ' || h.server_name), []) FROM connection_health AS h
            WHERE n.pod IS NULL OR n.workload IN (h.client_name, h.server_name))) AS explains
FROM _table AS t
LEFT JOIN _name AS n ON n.node = t.node AND n.netns_id = t.netns_id
LEFT JOIN _all AS a ON a.node = t.node
WHERE entry_max > 0 AND (entries >= 0.9 * entry_max OR drops > 0)
