-- The kernel killed processes for want of memory.
-- Inputs: process_event, process, cgroup, k8s_pod, cgroup_sample
-- Kind: root
WITH _kill AS (
    SELECT e.node, e.ts_ns, e.pid, e.command, coalesce(q.cgroup_id, e.cgroup_id) AS cgroup_id
    FROM process_event AS e LEFT JOIN process AS q ON q.node = e.node AND q.pid = e.pid
    WHERE e.kind = 'oom_kill'
    QUALIFY row_number() OVER (PARTITION BY e.node, e.pid ORDER BY e.ts_ns) = 1
),
_named AS (
    SELECT k.*, coalesce(p.namespace || '/' || p.name, c.path, 'no cgroup') AS pod,
        coalesce(p.namespace || '/' || coalesce(p.owner_name, p.name), c.path, 'no cgroup') AS workload, p.uid IS NOT NULL AS is_pod
    FROM _kill AS k
    LEFT JOIN cgroup AS c ON c.node = k.node AND c.cgroup_id = k.cgroup_id
    LEFT JOIN k8s_pod AS p ON p.uid = c.pod_uid
    QUALIFY row_number() OVER (PARTITION BY k.node, k.pid ORDER BY p.uid NULLS LAST) = 1
),
_limit AS (SELECT node, cgroup_id, max(memory_limit_bytes) AS limit_bytes FROM cgroup_sample GROUP BY ALL)
SELECT
    'critical' AS severity, CASE WHEN any_value(is_pod) THEN 'pod' ELSE 'node' END AS scope_kind, pod AS scope,
    CASE WHEN any_value(is_pod) THEN 'Pod ' ELSE '' END || pod || ' ran out of memory: the kernel killed ' || mode(command)
        || CASE WHEN count(*) > 1 THEN ' and ' || (count(*) - 1) || ' more' ELSE '' END AS title,
    count(*) || ' processes were killed'
        || coalesce('; the memory limit is ' || round(max(limit_bytes) / 1048576.0) || ' MiB', '; no limit of its own is known: the node was out of memory')
        || '.' AS summary,
    'select * from process_event where kind = ''oom_kill''' AS evidence, 0.99 AS confidence,
    -- A process gone is worth more than any delay seen.
    (60 * count(*) * 1000000000::BIGINT)::BIGINT AS impact_ns, min(realtime_ns(node, ts_ns)) AS first_ns,
    max(realtime_ns(node, ts_ns)) AS last_ns,
    [workload, pod] AS entities, [pod, workload] AS explains
FROM _named LEFT JOIN _limit USING (node, cgroup_id)
GROUP BY pod, workload
