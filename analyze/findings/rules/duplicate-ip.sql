-- Two hardware addresses answer for one IP address.
-- Inputs: neighbour, k8s_pod
-- Kind: root
WITH _seen AS (
    SELECT node, ip, mac, min(ts_ns) AS first_ns, max(ts_ns) AS last_ns, count(*) AS times
    FROM neighbour WHERE mac IS NOT NULL AND mac <> '00:00:00:00:00:00' AND ip NOT LIKE 'fe80:%' GROUP BY ALL
),
_twice AS (
    SELECT node, ip, count(*) AS macs, string_agg(mac, ', ' ORDER BY first_ns) AS list, min(first_ns) AS first_ns, max(last_ns) AS last_ns
    FROM _seen GROUP BY node, ip HAVING count(*) > 1
)
SELECT
    'critical' AS severity, 'address' AS scope_kind, t.ip AS scope,
    'The address ' || t.ip || coalesce(' of pod ' || p.namespace || '/' || p.name, '') || ' is used twice: ' || t.list AS title,
    'Neighbour tables on ' || t.node || ' had ' || t.macs
        || ' hardware addresses for it during the recording: packets go to one or the other by chance.' AS summary,
    'select * from neighbour where ip = ''' || t.ip || '''' AS evidence, 0.9 AS confidence, 30000000000::BIGINT AS impact_ns,
    t.first_ns, t.last_ns, list_filter([t.ip, p.namespace || '/' || coalesce(p.owner_name, p.name)], lambda x: x IS NOT NULL) AS entities,
    list_filter([p.namespace || '/' || p.name, p.namespace || '/' || coalesce(p.owner_name, p.name), t.ip], lambda x: x IS NOT NULL) AS explains
FROM _twice AS t LEFT JOIN k8s_pod AS p ON p.ip = t.ip AND NOT p.host_network
QUALIFY row_number() OVER (PARTITION BY t.node, t.ip ORDER BY p.valid_from_ns DESC NULLS LAST) = 1
