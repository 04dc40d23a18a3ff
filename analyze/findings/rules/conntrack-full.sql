-- The connection tracking table is full or nearly so: new connections are dropped.
-- Inputs: conntrack_sample
-- Kind: root
WITH _table AS (
    SELECT node, netns_id, max(entry_count) AS entries, any_value(entry_max) AS entry_max,
        max(coalesce(drop_count, 0)) - min(coalesce(drop_count, 0)) AS drops,
        max(coalesce(insert_failed_count, 0)) - min(coalesce(insert_failed_count, 0)) AS failed,
        max(coalesce(early_drop_count, 0)) - min(coalesce(early_drop_count, 0)) AS early, min(ts_ns) AS first_ns, max(ts_ns) AS last_ns
    FROM conntrack_sample GROUP BY ALL
)
SELECT
    CASE WHEN drops + early > 0 OR entries >= entry_max THEN 'critical' ELSE 'warning' END AS severity, 'node' AS scope_kind,
    node AS scope,
    'The connection tracking table of node ' || node || ' is full: ' || entries || ' of ' || entry_max || ' entries'
        || CASE WHEN drops > 0 THEN ', ' || drops || ' packets dropped' ELSE '' END AS title,
    'New connections through NAT and services fail while old ones go on; ' || early || ' entries were thrown out early, '
        || failed || ' could not be inserted.' AS summary,
    'select * from conntrack_sample' AS evidence, 0.95 AS confidence, ((drops + 1) * 1000000000)::BIGINT AS impact_ns,
    first_ns, last_ns, [node] AS entities, [node] AS explains
FROM _table
WHERE entry_max > 0 AND (entries >= 0.9 * entry_max OR drops > 0)
