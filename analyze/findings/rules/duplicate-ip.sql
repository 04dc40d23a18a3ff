-- Two hardware addresses answer for one IP address.
-- Inputs: neighbour, interface_sample, k8s_pod
-- Kind: root
WITH _own AS (
    -- Interfaces of the recorded network namespaces, and the addresses they were given.
    SELECT DISTINCT node, netns_id, mac, unnest(string_split(coalesce(addresses, ''), ' ')) AS address FROM interface_sample
    WHERE mac IS NOT NULL
),
_owner AS (
    SELECT DISTINCT node, netns_id, split_part(address, '/', 1) AS ip FROM _own WHERE address <> ''
),
_pod_netns AS (
    -- Whose interfaces a pod's are: those of the node answer for others by right (proxy ARP), a pod's for nobody.
    SELECT o.node, o.netns_id, any_value(p.namespace || '/' || p.name) AS pod
    FROM _owner AS o JOIN k8s_pod AS p ON p.ip = o.ip AND NOT p.host_network GROUP BY ALL
),
_mac AS (
    SELECT DISTINCT m.node, m.netns_id, m.mac, p.pod FROM _own AS m LEFT JOIN _pod_netns AS p USING (node, netns_id)
),
_seen AS (
    SELECT node, netns_id, ip, mac, min(ts_ns) AS first_ns, max(ts_ns) AS last_ns, arg_max(state, ts_ns) AS state
    FROM neighbour WHERE mac IS NOT NULL AND mac <> '00:00:00:00:00:00' AND ip NOT LIKE 'fe80:%' AND state NOT IN ('failed', 'incomplete')
    GROUP BY ALL
),
_fresh AS (
    -- What a table still holds at its last reading, and not for memory's sake only: an address that moved leaves stale entries.
    SELECT *, state IN ('reachable', 'delay', 'probe')
        AND last_ns = max(last_ns) OVER (PARTITION BY node, netns_id, ip) AS is_used FROM _seen
),
_strange AS (
    -- The owner of the address was recorded: its interfaces are known, and this is none of them.
    SELECT s.node, s.ip, s.mac, any_value(x.pod) AS pod, any_value(o.netns_id) AS owner, min(s.first_ns) AS first_ns, max(s.last_ns) AS last_ns
    FROM _fresh AS s
    JOIN _owner AS o USING (node, ip)
    LEFT JOIN _mac AS x ON x.node = s.node AND x.mac = s.mac AND x.netns_id <> o.netns_id
    WHERE NOT EXISTS (SELECT 1 FROM _mac AS m WHERE m.node = s.node AND m.netns_id = o.netns_id AND m.mac = s.mac)
        AND (x.pod IS NOT NULL OR (x.mac IS NULL AND s.is_used))
    GROUP BY s.node, s.ip, s.mac
),
_twice AS (
    SELECT s.node, s.ip, s.first_ns, s.last_ns,
        coalesce(any_value(o.mac) || ', ', '') || s.mac || coalesce(' (of pod ' || s.pod || ')', '') AS list
    FROM _strange AS s
    LEFT JOIN _own AS o ON o.node = s.node AND o.netns_id = s.owner AND split_part(o.address, '/', 1) = s.ip
    GROUP BY s.node, s.ip, s.mac, s.pod, s.first_ns, s.last_ns
    UNION ALL
    -- Its owner was not: two that are both in use.
    SELECT node, ip, min(first_ns), max(last_ns), string_agg(DISTINCT mac, ', ' ORDER BY mac)
    FROM _fresh WHERE is_used AND (node, ip) NOT IN (SELECT (node, ip) FROM _owner)
    GROUP BY node, ip HAVING count(DISTINCT mac) > 1
)
SELECT
    'critical' AS severity, 'address' AS scope_kind, t.ip AS scope,
    'The address ' || t.ip || coalesce(' of pod ' || p.namespace || '/' || p.name, '') || ' is used twice: ' || t.list AS title,
    'Neighbour tables on ' || t.node || ' had another hardware address for it than its owner''s: packets go to one or the other by chance.' AS summary,
    'select * from neighbour where ip = ''' || t.ip || '''' AS evidence, 0.9 AS confidence, 30000000000::BIGINT AS impact_ns,
    realtime_ns(t.node, t.first_ns) AS first_ns, realtime_ns(t.node, t.last_ns) AS last_ns,
    list_filter([t.ip, p.namespace || '/' || coalesce(p.owner_name, p.name)], lambda x: x IS NOT NULL) AS entities,
    list_filter([p.namespace || '/' || p.name, p.namespace || '/' || coalesce(p.owner_name, p.name), t.ip], lambda x: x IS NOT NULL) AS explains
FROM _twice AS t LEFT JOIN k8s_pod AS p ON p.ip = t.ip AND NOT p.host_network
QUALIFY row_number() OVER (PARTITION BY t.node, t.ip ORDER BY p.valid_from_ns DESC NULLS LAST) = 1
