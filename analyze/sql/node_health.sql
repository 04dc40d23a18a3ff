-- One row: one node over the recording: how busy, how short of what, and what the cluster says of it.
-- Inputs: manifest_node, cpu_sample, node_sample, disk_sample, interface_sample, conntrack_sample, k8s_node
-- Columns:
--   node VARCHAR: the node.
--   cpu_count BIGINT: CPUs.
--   cpu_busy_ratio DOUBLE: share of CPU time that was not idle. NULL without samples.
--   cpu_busiest_ratio DOUBLE: the same of its busiest CPU. NULL without samples.
--   cpu_steal_ratio DOUBLE: share taken by the hypervisor. NULL without samples.
--   running_avg DOUBLE: threads that ran or wanted to, on average. NULL without samples.
--   memory_available_ratio DOUBLE: smallest share of memory available. NULL without samples.
--   swap_out_count BIGINT: pages swapped out. NULL without samples.
--   oom_kill_count BIGINT: processes killed for want of memory. NULL without samples.
--   psi_cpu_ratio DOUBLE: share of time in which something waited for a CPU. NULL without PSI.
--   psi_memory_ratio DOUBLE: the same for memory. NULL without PSI.
--   psi_io_ratio DOUBLE: the same for disks. NULL without PSI.
--   disk_busy_ratio DOUBLE: share of time the busiest disk had requests. NULL without samples.
--   interface_drop_count BIGINT: packets its interfaces dropped, both ways. NULL without samples.
--   softnet_drop_count BIGINT: packets dropped for want of backlog. NULL without samples.
--   conntrack_ratio DOUBLE: largest share of the connection tracking table in use. NULL without it.
--   is_ready BOOLEAN: condition Ready. NULL without the cluster's word.
--   is_cordoned BOOLEAN: unschedulable. NULL without the cluster's word.
--   pressures VARCHAR: memory, disk, pid, network: the conditions that hold, joined by blanks. NULL without the cluster's word.
WITH _cpu AS (
    SELECT node, cpu, max(ts_ns) - min(ts_ns) AS time_ns,
        (max(idle_ns) - min(idle_ns)) + (max(iowait_ns) - min(iowait_ns)) AS idle_ns, max(steal_ns) - min(steal_ns) AS steal_ns,
        max(softnet_dropped_count) - min(softnet_dropped_count) AS softnet
    FROM cpu_sample GROUP BY node, cpu
),
_cpus AS (
    SELECT node, greatest(0, 1 - sum(idle_ns) / sum(time_ns)) AS busy, max(greatest(0, 1 - idle_ns / time_ns)) AS busiest,
        sum(steal_ns) / sum(time_ns) AS steal, sum(softnet)::BIGINT AS softnet
    FROM _cpu WHERE time_ns > 0 GROUP BY node
),
_node AS (
    SELECT node, avg(running_count) AS running, min(memory_available_bytes / memory_total_bytes) AS available,
        max(swap_out_count) - min(swap_out_count) AS swap_out, max(oom_kill_count) - min(oom_kill_count) AS oom,
        (max(psi_cpu_some_ns) - min(psi_cpu_some_ns)) / nullif(max(ts_ns) - min(ts_ns), 0) AS psi_cpu,
        (max(psi_memory_some_ns) - min(psi_memory_some_ns)) / nullif(max(ts_ns) - min(ts_ns), 0) AS psi_memory,
        (max(psi_io_some_ns) - min(psi_io_some_ns)) / nullif(max(ts_ns) - min(ts_ns), 0) AS psi_io
    FROM node_sample GROUP BY node
),
_disk AS (
    SELECT node, max(busy) AS busy
    FROM (SELECT node, (max(busy_ns) - min(busy_ns)) / nullif(max(ts_ns) - min(ts_ns), 0) AS busy FROM disk_sample GROUP BY node, device)
    GROUP BY node
),
_interface AS (
    SELECT node, sum(drops)::BIGINT AS drops
    FROM (SELECT node, max(received_drops) - min(received_drops) + max(sent_drops) - min(sent_drops) AS drops
        FROM interface_sample GROUP BY node, netns_id, interface) GROUP BY node
),
_conntrack AS (SELECT node, max(entry_count / nullif(entry_max, 0)) AS used FROM conntrack_sample GROUP BY node)
SELECT m.node, m.cpu_count, c.busy AS cpu_busy_ratio, c.busiest AS cpu_busiest_ratio, c.steal AS cpu_steal_ratio,
    n.running AS running_avg, n.available AS memory_available_ratio, n.swap_out AS swap_out_count, n.oom AS oom_kill_count,
    n.psi_cpu AS psi_cpu_ratio, n.psi_memory AS psi_memory_ratio, n.psi_io AS psi_io_ratio, d.busy AS disk_busy_ratio,
    i.drops AS interface_drop_count, c.softnet AS softnet_drop_count, t.used AS conntrack_ratio, k.ready AS is_ready,
    k.unschedulable AS is_cordoned,
    CASE WHEN k.name IS NOT NULL THEN concat_ws(' ', CASE WHEN k.memory_pressure THEN 'memory' END,
        CASE WHEN k.disk_pressure THEN 'disk' END, CASE WHEN k.pid_pressure THEN 'pid' END,
        CASE WHEN k.network_unavailable THEN 'network' END) END AS pressures
FROM manifest_node AS m
LEFT JOIN _cpus AS c USING (node)
LEFT JOIN _node AS n USING (node)
LEFT JOIN _disk AS d USING (node)
LEFT JOIN _interface AS i USING (node)
LEFT JOIN _conntrack AS t USING (node)
LEFT JOIN k8s_node AS k ON k.name = m.node
ORDER BY m.node
