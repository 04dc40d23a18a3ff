-- One row: one function of one program, and its share of the program's CPU time.
-- Inputs: sampled_stack, stack, request_sample, logical_request
-- Columns:
--   node VARCHAR: name of the node.
--   name VARCHAR: namespace/workload, or the program's command where it belongs to no pod.
--   command VARCHAR: the program's command. NULL when the process is not known.
--   function VARCHAR: the function, or [module+0xoffset] where the file has no name for it.
--   module VARCHAR: file it is in. NULL when in the kernel, or compiled at run time.
--   kind VARCHAR: user or kernel.
--   self_count BIGINT: samples in the function itself.
--   self_ns BIGINT: CPU time in the function itself, ns.
--   total_ns BIGINT: CPU time in it and in what it calls, ns.
--   self_ratio DOUBLE: share of the program's CPU time in the function itself.
--   total_ratio DOUBLE: share of the program's CPU time in it and in what it calls.
--   request_ns BIGINT: of self_ns, in threads while they served a request, ns.
--   slow_request_ns BIGINT: of request_ns, in requests of the slowest twentieth of their server, ns.
WITH _frame AS (
    SELECT DISTINCT ON (node, stack_id, symbol, module, kind) node, stack_id, symbol, module, kind, depth = 0 AS is_self
    FROM stack ORDER BY node, stack_id, symbol, module, kind, depth
),
_slow AS (
    SELECT server_name, quantile_disc(latency_ns, 0.95) AS limit_ns FROM logical_request
    WHERE server_request_id IS NOT NULL AND latency_ns IS NOT NULL GROUP BY server_name
),
_request AS (
    SELECT r.server_request_id AS request_id, r.latency_ns >= s.limit_ns AS is_slow
    FROM logical_request AS r JOIN _slow AS s USING (server_name)
),
_served AS (
    SELECT m.node, m.pid, m.stack_id, sum(m.weight_ns) AS request_ns, coalesce(sum(m.weight_ns) FILTER (r.is_slow), 0) AS slow_request_ns
    FROM request_sample AS m LEFT JOIN _request AS r USING (request_id)
    GROUP BY m.node, m.pid, m.stack_id
),
_whole AS (SELECT node, name, command, sum(cpu_ns) AS cpu_ns FROM sampled_stack GROUP BY ALL),
_used AS (
    SELECT s.node, s.name, s.command, s.stack_id, sum(s.sample_count) AS sample_count, sum(s.cpu_ns) AS cpu_ns,
        sum(r.request_ns) AS request_ns, sum(r.slow_request_ns) AS slow_request_ns
    FROM sampled_stack AS s LEFT JOIN _served AS r ON r.node = s.node AND r.pid = s.pid AND r.stack_id = s.stack_id
    GROUP BY ALL
)
SELECT u.node, u.name, u.command, f.symbol AS function, f.module, f.kind::VARCHAR AS kind,
    coalesce(sum(u.sample_count) FILTER (f.is_self), 0)::BIGINT AS self_count,
    coalesce(sum(u.cpu_ns) FILTER (f.is_self), 0)::BIGINT AS self_ns,
    sum(u.cpu_ns)::BIGINT AS total_ns,
    self_ns / any_value(w.cpu_ns)::DOUBLE AS self_ratio,
    total_ns / any_value(w.cpu_ns)::DOUBLE AS total_ratio,
    coalesce(sum(u.request_ns) FILTER (f.is_self), 0)::BIGINT AS request_ns,
    coalesce(sum(u.slow_request_ns) FILTER (f.is_self), 0)::BIGINT AS slow_request_ns
FROM _used AS u
JOIN _frame AS f ON f.node = u.node AND f.stack_id = u.stack_id
JOIN _whole AS w ON w.node = u.node AND w.name = u.name AND w.command IS NOT DISTINCT FROM u.command
GROUP BY u.node, u.name, u.command, f.symbol, f.module, f.kind
ORDER BY u.node, u.name, u.command, self_ns DESC, total_ns DESC, function, f.module
