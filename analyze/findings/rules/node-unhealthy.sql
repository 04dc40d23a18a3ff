-- Kubernetes itself says that a node is not well.
-- Inputs: k8s_node, k8s_pod
-- Kind: root
WITH _node AS (
    SELECT name, list_filter([
            CASE WHEN NOT ready THEN 'is not ready' || coalesce(' (' || ready_reason || ')', '') END,
            CASE WHEN memory_pressure THEN 'is short of memory' END, CASE WHEN disk_pressure THEN 'is short of disk space' END,
            CASE WHEN pid_pressure THEN 'is short of process ids' END, CASE WHEN network_unavailable THEN 'has no network' END,
            CASE WHEN unschedulable THEN 'is cordoned' END
        ], lambda x: x IS NOT NULL) AS troubles, NOT ready OR memory_pressure OR disk_pressure OR network_unavailable AS is_bad
    FROM k8s_node
),
_pods AS (
    SELECT node, count(*) AS pods, list(DISTINCT namespace || '/' || coalesce(owner_name, name)) AS workloads,
        list(namespace || '/' || name) AS names
    FROM k8s_pod WHERE deleted_ns IS NULL GROUP BY node
)
SELECT
    CASE WHEN n.is_bad THEN 'critical' ELSE 'notice' END AS severity, 'node' AS scope_kind, n.name AS scope,
    'Node ' || n.name || ' ' || array_to_string(n.troubles, ', ') AS title,
    coalesce(p.pods, 0) || ' pods run there.' AS summary,
    'select * from k8s_node where name = ''' || n.name || '''' AS evidence, 0.95 AS confidence,
    (coalesce(p.pods, 0) * 1000000000)::BIGINT AS impact_ns, NULL::BIGINT AS first_ns, NULL::BIGINT AS last_ns, [n.name] AS entities,
    CASE WHEN n.is_bad THEN list_append(coalesce(p.names, []), n.name) ELSE [] END AS explains
FROM _node AS n LEFT JOIN _pods AS p ON p.node = n.name
WHERE len(n.troubles) > 0
