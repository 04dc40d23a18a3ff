-- One row: one pod over the recording: its share of requests, errors and time, its limits, and what the cluster says of it.
-- Inputs: k8s_pod, k8s_container, cgroup, cgroup_sample, logical_request, process_event, process
-- Columns:
--   namespace VARCHAR: namespace.
--   pod VARCHAR: pod.
--   workload VARCHAR: namespace and name of what owns it.
--   version VARCHAR: version of the pod's template. NULL when not known.
--   node VARCHAR: node it runs on. NULL when not scheduled.
--   phase VARCHAR: phase.
--   reason VARCHAR: why, as kubectl shows it.
--   is_ready BOOLEAN: condition Ready. NULL when known from the runtime alone.
--   restart_count BIGINT: restarts of its containers. NULL when known from the runtime alone.
--   last_reason VARCHAR: why a container of it ended last. NULL when none did.
--   cpu_cores DOUBLE: CPUs used on average. NULL without samples.
--   cpu_limit_cores DOUBLE: its containers' CPU limits together. NULL without limits or samples.
--   throttled_ratio DOUBLE: share of the periods in which it was throttled. NULL without limits or samples.
--   memory_bytes BIGINT: most memory used. NULL without samples.
--   memory_limit_bytes BIGINT: its containers' memory limits together. NULL without limits or samples.
--   oom_kill_count BIGINT: processes of it killed for want of memory. NULL without samples.
--   request_count BIGINT: requests it served.
--   error_count BIGINT: of them failed by its own fault.
--   unanswered_count BIGINT: of them without an answer.
--   p50_ns BIGINT: median latency in the pod, else as its callers saw it, ns. NULL without requests.
--   p95_ns BIGINT: 95th percentile of the same, ns. NULL without requests.
--   latency_factor DOUBLE: its median against that of its siblings in the same protocol. NULL without siblings or requests.
--   request_share DOUBLE: its share of the requests of its workload. NULL without requests to the workload.
WITH _container AS (
    SELECT pod_uid, arg_max(last_reason, last_finished_ns) AS last_reason FROM k8s_container GROUP BY pod_uid
),
_cgroup AS (
    SELECT DISTINCT c.node, c.cgroup_id, coalesce(k.pod_uid, c.pod_uid) AS uid
    FROM cgroup AS c LEFT JOIN k8s_container AS k ON k.container_id = c.container_id
    WHERE c.container_id IS NOT NULL AND coalesce(k.pod_uid, c.pod_uid) IS NOT NULL
),
_used AS (
    SELECT node, cgroup_id, (max(cpu_usage_ns) - min(cpu_usage_ns)) / nullif(max(ts_ns) - min(ts_ns), 0) AS cores,
        max(cpu_quota_ns / cpu_period_ns) AS limit_cores, max(throttled_count) - min(throttled_count) AS throttled,
        max(period_count) - min(period_count) AS periods, max(memory_bytes) AS memory_bytes,
        max(memory_limit_bytes) AS limit_bytes, max(oom_kill_count) - min(oom_kill_count) AS oom
    FROM cgroup_sample GROUP BY node, cgroup_id
),
_resource AS (
    SELECT g.uid, sum(u.cores) AS cores, sum(u.limit_cores) AS limit_cores, sum(u.throttled) / nullif(sum(u.periods), 0) AS throttled,
        sum(u.memory_bytes)::BIGINT AS memory_bytes, sum(u.limit_bytes)::BIGINT AS limit_bytes, sum(u.oom)::BIGINT AS oom
    FROM _cgroup AS g JOIN _used AS u USING (node, cgroup_id) GROUP BY g.uid
),
_own AS (
    SELECT server_namespace, server_pod, server_name, protocol, is_error AND error_kind IS DISTINCT FROM 'client' AS failed, outcome,
        coalesce(server_latency_ns, latency_ns) AS own_ns
    FROM logical_request WHERE server_pod IS NOT NULL AND outcome <> 'no_request'
),
_served AS (
    SELECT server_namespace, server_pod, any_value(server_name) AS server_name, count(*) AS requests, count(*) FILTER (failed) AS errors,
        count(*) FILTER (outcome = 'no_response') AS unanswered, quantile_disc(own_ns, 0.5) AS p50_ns,
        quantile_disc(own_ns, 0.95) AS p95_ns
    FROM _own GROUP BY server_namespace, server_pod
),
_total AS (SELECT server_name, sum(requests) AS requests FROM _served GROUP BY server_name),
_median AS (
    SELECT server_name, protocol, server_namespace, server_pod, quantile_disc(own_ns, 0.5) AS p50_ns, count(*) AS requests
    FROM _own GROUP BY server_name, protocol, server_namespace, server_pod
),
_factor AS (
    SELECT a.server_namespace, a.server_pod, arg_max(a.p50_ns / nullif(b.p50_ns, 0), a.requests) AS factor
    FROM _median AS a
    JOIN (
        SELECT x.server_name, x.protocol, x.server_pod, median(y.p50_ns) AS p50_ns
        FROM _median AS x
        JOIN _median AS y ON y.server_name = x.server_name AND y.protocol = x.protocol AND y.server_pod <> x.server_pod
        GROUP BY x.server_name, x.protocol, x.server_pod
    ) AS b ON b.server_name = a.server_name AND b.protocol = a.protocol AND b.server_pod = a.server_pod
    GROUP BY a.server_namespace, a.server_pod
),
_pod AS (SELECT DISTINCT ON (uid) * FROM k8s_pod ORDER BY uid, valid_from_ns DESC NULLS LAST)
SELECT p.namespace, p.name AS pod, p.namespace || '/' || coalesce(p.owner_name, p.name) AS workload, p.version, p.node,
    p.phase, p.reason, p.ready AS is_ready, p.restart_count::BIGINT AS restart_count, c.last_reason, r.cores AS cpu_cores,
    r.limit_cores AS cpu_limit_cores, r.throttled AS throttled_ratio, r.memory_bytes, r.limit_bytes AS memory_limit_bytes,
    r.oom AS oom_kill_count, coalesce(s.requests, 0) AS request_count, coalesce(s.errors, 0) AS error_count,
    coalesce(s.unanswered, 0) AS unanswered_count, s.p50_ns, s.p95_ns, f.factor AS latency_factor, s.requests / t.requests AS request_share
FROM _pod AS p
LEFT JOIN _container AS c ON c.pod_uid = p.uid
LEFT JOIN _resource AS r ON r.uid = p.uid
LEFT JOIN _served AS s ON s.server_namespace = p.namespace AND s.server_pod = p.name
LEFT JOIN _total AS t ON t.server_name = s.server_name
LEFT JOIN _factor AS f ON f.server_namespace = p.namespace AND f.server_pod = p.name
ORDER BY p.namespace, p.name
