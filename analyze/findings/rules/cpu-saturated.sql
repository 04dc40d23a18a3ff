-- All CPUs of a node are busy and threads wait for one.
-- Inputs: cpu_sample, node_sample, process_sample, process, cgroup, k8s_pod, logical_request, manifest_node, hot_function
-- Kind: root
-- Effect: slowness
WITH _step AS (
    SELECT node, cpu, ts_ns,
        idle_ns + iowait_ns - lag(idle_ns + iowait_ns) OVER w AS idle_ns, nice_ns - lag(nice_ns) OVER w AS nice_ns, ts_ns - lag(ts_ns) OVER w AS time_ns,
        steal_ns - lag(steal_ns) OVER w AS steal_ns
    FROM cpu_sample WINDOW w AS (PARTITION BY node, cpu ORDER BY ts_ns)
),
_second AS (
    SELECT node, ts_ns, 1 - sum(idle_ns) / sum(time_ns) AS busy, sum(nice_ns) / sum(time_ns) AS nice, sum(steal_ns) / sum(time_ns) AS steal
    FROM _step WHERE time_ns > 0 GROUP BY node, ts_ns
),
_node AS (
    SELECT node, avg(busy) AS busy, 
        -- Work of low priority gives way: where it has most of the time, there is room.
        avg((busy >= 0.95 AND nice <= 0.5)::INTEGER) AS full_share, avg(nice) AS nice, avg(steal) AS steal, count(*) AS seconds,
        min(ts_ns) AS first_ns, max(ts_ns) AS last_ns
    FROM _second GROUP BY node
),
_wait AS (SELECT node, avg(running_count) AS running FROM node_sample GROUP BY node),
_used AS (
    SELECT s.node, s.pid, any_value(s.command) AS command, max(s.cpu_ns) - min(s.cpu_ns) AS cpu_ns
    FROM process_sample AS s GROUP BY s.node, s.pid
),
_owner AS (
    SELECT u.*, p.namespace || '/' || p.name AS pod, p.namespace || '/' || coalesce(p.owner_name, p.name) AS workload
    FROM _used AS u
    LEFT JOIN process AS q ON q.node = u.node AND q.pid = u.pid
    LEFT JOIN cgroup AS c ON c.node = u.node AND c.cgroup_id = q.cgroup_id
    LEFT JOIN k8s_pod AS p ON p.uid = c.pod_uid
    QUALIFY row_number() OVER (PARTITION BY u.node, u.pid ORDER BY q.start_ns DESC NULLS LAST) = 1
),
_top AS (
    -- Processes of one name and pod together: a hog often comes in many.
    SELECT node, command, pod, any_value(workload) AS workload, sum(cpu_ns) AS cpu_ns, count(*) AS processes
    FROM _owner GROUP BY node, command, pod
    QUALIFY row_number() OVER (PARTITION BY node ORDER BY sum(cpu_ns) DESC) = 1
),
_hot AS (
    -- Where its own samples say the time went.
    SELECT node, command, arg_max(function, self_ns) AS function, max(self_ns) / sum(self_ns) AS share
    FROM (SELECT node, command, function, sum(self_ns) AS self_ns FROM hot_function GROUP BY ALL)
    GROUP BY node, command HAVING sum(self_ns) > 0
),
_served AS (
    SELECT list(DISTINCT server_name) AS names, list(DISTINCT coalesce(server_namespace || '/' || server_pod, server_name)) AS pods,
        coalesce(sum(latency_ns), 0) AS total_ns FROM logical_request
)
SELECT
    CASE WHEN n.full_share >= 0.8 THEN 'critical' ELSE 'warning' END AS severity, 'node' AS scope_kind, n.node AS scope,
    'The CPUs of node ' || n.node || ' are busy (' || round(100 * n.busy) || ' %), mostly with ' || t.command
        || CASE WHEN t.processes > 1 THEN ' (' || t.processes || ' processes)' ELSE '' END
        || coalesce(' of pod ' || t.pod, ', which belongs to no pod') AS title,
    'On average ' || round(w.running, 1) || ' threads wanted one of ' || m.cpu_count || ' CPUs; ' || round(100 * n.full_share)
        || ' % of the seconds had no idle CPU. ' || t.command || ' used ' || round(t.cpu_ns / 1e9, 1) || ' s of CPU time.'
        || coalesce(' Its hottest function: ' || h.function || ' (' || round(100 * h.share) || ' %).', '')
        || CASE WHEN n.steal >= 0.05 THEN ' The hypervisor took ' || round(100 * n.steal) || ' % away.' ELSE '' END AS summary,
    'select * from process_sample order by cpu_ns desc' AS evidence, 0.85 AS confidence,
    (s.total_ns * n.full_share)::BIGINT AS impact_ns, realtime_ns(n.node, n.first_ns) AS first_ns, realtime_ns(n.node, n.last_ns) AS last_ns,
    list_append(s.names, n.node) AS entities, list_concat(s.names, s.pods) AS explains,
    -- A server that works hard because of what it is asked: then that is the cause.
    list_filter([t.workload], lambda x: x IS NOT NULL) AS yields_to
FROM _node AS n
JOIN manifest_node AS m USING (node)
JOIN _wait AS w USING (node)
JOIN _top AS t USING (node)
LEFT JOIN _hot AS h ON h.node = n.node AND h.command = t.command
CROSS JOIN _served AS s
WHERE n.seconds >= 5 AND n.full_share >= 0.6
    -- More threads than CPUs want to run: somebody waits.
    -- (Those of low priority are among them, and are not to be counted.)
    AND w.running >= CASE WHEN n.nice >= 0.1 THEN 3 ELSE 1.5 END * m.cpu_count
    AND t.cpu_ns >= 0.3 * (n.last_ns - n.first_ns)
