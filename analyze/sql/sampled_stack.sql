-- One row: one stack of one program, and how much CPU time its samples stand for.
-- Inputs: stack_sample, stack, process, cgroup, k8s_pod
-- Columns:
--   node VARCHAR: name of the node.
--   name VARCHAR: namespace/workload, or the program's command where it belongs to no pod.
--   pod VARCHAR: namespace/name of the pod. NULL when it is none.
--   command VARCHAR: the program's command. NULL when the process is not known.
--   pid INTEGER: the process.
--   stack_id BIGINT: stack.stack_id.
--   sample_count BIGINT: samples.
--   cpu_ns BIGINT: CPU time they stand for, ns.
--   folded VARCHAR: the frames, outermost first, joined by semicolons; those in the kernel end in _[k].
WITH _process AS (
    -- From /proc a start is known to the clock tick of 10 ms only.
    SELECT node, pid, coalesce(start_ns, 0) - 20000000 AS from_ns, command, cgroup_id FROM process
),
_pod AS (
    SELECT DISTINCT ON (uid) uid, namespace || '/' || name AS pod, namespace || '/' || coalesce(owner_name, name) AS workload
    FROM k8s_pod ORDER BY uid, valid_from_ns DESC NULLS LAST
),
_cgroup AS (SELECT node, cgroup_id, any_value(pod_uid) AS pod_uid FROM cgroup GROUP BY node, cgroup_id),
_owned AS (
    SELECT s.node, s.pid, s.stack_id, s.weight_ns, p.command, p.cgroup_id
    FROM stack_sample AS s
    ASOF LEFT JOIN _process AS p ON p.node = s.node AND p.pid = s.pid AND p.from_ns <= s.ts_ns
),
_sum AS (
    SELECT node, pid, stack_id, command, cgroup_id, count(*) AS sample_count, sum(weight_ns)::BIGINT AS cpu_ns
    FROM _owned GROUP BY ALL
),
_folded AS (
    SELECT node, stack_id,
        string_agg(replace(symbol, ';', ':') || CASE WHEN kind = 'kernel' THEN '_[k]' ELSE '' END, ';' ORDER BY depth DESC) AS folded
    FROM stack GROUP BY node, stack_id
)
SELECT s.node, coalesce(p.workload, s.command, 'pid ' || s.pid) AS name, p.pod, s.command, s.pid, s.stack_id, s.sample_count, s.cpu_ns,
    coalesce(f.folded, '[unknown]') AS folded
FROM _sum AS s
LEFT JOIN _cgroup AS c ON c.node = s.node AND c.cgroup_id = s.cgroup_id
LEFT JOIN _pod AS p ON p.uid = c.pod_uid
LEFT JOIN _folded AS f ON f.node = s.node AND f.stack_id = s.stack_id
ORDER BY s.node, name, s.cpu_ns DESC, s.pid, s.stack_id
