-- One row: the requests of one kind that one pod or program made to one block device.
-- Inputs: block_io, process, cgroup, k8s_container, k8s_pod
-- Columns:
--   node VARCHAR: the node.
--   device VARCHAR: the device.
--   operation VARCHAR: read, write, flush, discard or other.
--   name VARCHAR: who asked: the pod with its namespace, else the program; 'kernel' for what was written back or journaled.
--   request_count BIGINT: requests.
--   size_bytes BIGINT: bytes.
--   error_count BIGINT: requests the device failed.
--   queue_p95_ns BIGINT: 95th percentile of the time before the device got it, ns. NULL when not measured.
--   p50_ns BIGINT: median of the time on the device, ns.
--   p95_ns BIGINT: 95th percentile, ns.
--   p99_ns BIGINT: 99th percentile, ns.
--   max_ns BIGINT: longest, ns.
--   total_ns BIGINT: sum of the times on the device, ns.
WITH _pod AS (
    SELECT g.node, g.cgroup_id, any_value(p.namespace || '/' || p.name) AS name
    FROM cgroup AS g
    LEFT JOIN k8s_container AS k ON k.container_id = g.container_id
    JOIN k8s_pod AS p ON p.uid = coalesce(k.pod_uid, g.pod_uid)
    GROUP BY ALL
),
_process AS (
    -- Of a pid used again the later use; requests are few beside it.
    SELECT node, pid, arg_max(cgroup_id, coalesce(start_ns, 0)) AS cgroup_id FROM process GROUP BY ALL
)
SELECT b.node::VARCHAR AS node, b.device, b.operation::VARCHAR AS operation, coalesce(p.name, b.command, 'kernel') AS name,
    count(*) AS request_count, sum(b.size_bytes)::BIGINT AS size_bytes, count(*) FILTER (b.is_error) AS error_count,
    quantile_disc(b.queue_ns, 0.95) AS queue_p95_ns, quantile_disc(b.duration_ns, 0.50) AS p50_ns,
    quantile_disc(b.duration_ns, 0.95) AS p95_ns, quantile_disc(b.duration_ns, 0.99) AS p99_ns,
    max(b.duration_ns) AS max_ns, sum(b.duration_ns)::BIGINT AS total_ns
FROM block_io AS b
LEFT JOIN _process AS q ON q.node = b.node AND q.pid = b.pid
LEFT JOIN _pod AS p ON p.node = b.node AND p.cgroup_id = q.cgroup_id
GROUP BY ALL
ORDER BY total_ns DESC, node, device, operation, name
