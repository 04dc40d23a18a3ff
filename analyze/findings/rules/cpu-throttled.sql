-- A container is throttled: it used up its CPU limit and has to wait.
-- Inputs: cgroup_sample, cgroup, k8s_container, k8s_pod
-- Kind: root
-- Effect: slowness
WITH _span AS (
    SELECT node, cgroup_id, max(throttled_ns) - min(throttled_ns) AS throttled_ns,
        max(throttled_count) - min(throttled_count) AS throttled, max(period_count) - min(period_count) AS periods,
        any_value(cpu_quota_ns) AS quota_ns, any_value(cpu_period_ns) AS period_ns, min(ts_ns) AS first_ns, max(ts_ns) AS last_ns
    FROM cgroup_sample GROUP BY node, cgroup_id
),
_named AS (
    SELECT s.*, coalesce(p.namespace || '/' || p.name, c.path) AS pod, coalesce(p.namespace || '/' || coalesce(p.owner_name, p.name), c.path)
        AS workload, k.name AS container
    FROM _span AS s
    JOIN cgroup AS c ON c.node = s.node AND c.cgroup_id = s.cgroup_id
    LEFT JOIN k8s_container AS k ON k.container_id = c.container_id
    LEFT JOIN k8s_pod AS p ON p.uid = coalesce(k.pod_uid, c.pod_uid)
    QUALIFY row_number() OVER (PARTITION BY s.node, s.cgroup_id ORDER BY k.name NULLS LAST) = 1
)
SELECT
    CASE WHEN throttled >= 0.25 * periods THEN 'critical' ELSE 'warning' END AS severity,
    'pod' AS scope_kind, pod AS scope,
    'Pod ' || pod || coalesce(' (container ' || container || ')', '') || ' is throttled in ' || round(100.0 * throttled / periods)
        || ' % of the periods: its CPU limit is ' || round(quota_ns / period_ns, 2) || ' cores' AS title,
    throttled || ' of ' || periods || ' periods ended with its processes stopped, '
        || as_ms(throttled_ns::BIGINT) || ' in sum.' AS summary,
    'select * from cgroup_sample where throttled_count > 0' AS evidence,
    0.95 AS confidence, throttled_ns::BIGINT AS impact_ns, realtime_ns(node, first_ns) AS first_ns,
    realtime_ns(node, last_ns) AS last_ns, [workload, pod] AS entities,
    [pod, workload] AS explains
FROM _named
WHERE periods >= 10 AND throttled >= 0.05 * periods AND throttled_ns >= 50000000
QUALIFY row_number() OVER (PARTITION BY pod ORDER BY throttled_ns DESC) = 1
