-- Kubernetes itself says that a pod is not well: it crashes, cannot start, or is not ready.
-- Inputs: k8s_pod, k8s_container, k8s_event, manifest_node
-- Kind: root
WITH _container AS (
    SELECT namespace, pod_name, arg_max(name, restart_count) AS container, max(restart_count) AS restarts,
        mode(reason) FILTER (state = 'waiting' AND reason NOT IN ('ContainerCreating', 'PodInitializing')) AS waiting,
        mode(last_reason) AS last_reason, max(last_exit_code) AS last_exit_code, max(last_finished_ns) AS last_finished_ns,
        any_value(image) FILTER (state = 'waiting') AS image
    FROM k8s_container GROUP BY ALL
),
_event AS (
    SELECT namespace, name, arg_max(message, last_ns) AS message, arg_max(reason, last_ns) AS reason, max(last_ns) AS last_ns
    FROM k8s_event WHERE kind = 'Pod' AND type = 'Warning' GROUP BY ALL
),
_when AS (SELECT min(start_ns) AS start_ns FROM manifest_node),
_pod AS (
    SELECT p.namespace || '/' || p.name AS pod, p.namespace || '/' || coalesce(p.owner_name, p.name) AS workload, p.phase, p.reason,
        p.ready, p.node, c.*  EXCLUDE (namespace, pod_name), e.message, e.reason AS event_reason,
        CASE WHEN p.phase = 'Failed' THEN coalesce(p.reason, 'Failed')
            WHEN c.waiting IS NOT NULL THEN c.waiting
            -- Restarted lately: long ago is history.
            WHEN c.restarts > 0 AND c.last_finished_ns >= (SELECT start_ns FROM _when) - 600000000000
                THEN 'restarted (' || coalesce(c.last_reason, 'exit ' || c.last_exit_code, '?') || ')'
            WHEN p.phase = 'Pending' AND p.node IS NULL THEN 'cannot be scheduled'
            WHEN p.phase = 'Running' AND NOT p.ready THEN 'not ready' END AS trouble
    FROM k8s_pod AS p
    LEFT JOIN _container AS c ON c.namespace = p.namespace AND c.pod_name = p.name
    LEFT JOIN _event AS e ON e.namespace = p.namespace AND e.name = p.name
    WHERE p.deleted_ns IS NULL AND p.phase <> 'Succeeded'
)
SELECT
    CASE WHEN trouble IN ('not ready', 'Evicted', 'Completed') OR trouble LIKE 'restarted%' THEN 'warning' ELSE 'critical' END AS severity,
    'workload' AS scope_kind, workload AS scope,
    CASE WHEN count(*) > 1 THEN count(*) || ' pods of ' || workload || ': ' ELSE 'Pod ' || any_value(pod) || ': ' END || trouble
        || CASE WHEN max(restarts) > 0 THEN ', ' || max(restarts) || ' restarts' ELSE '' END AS title,
    'Container ' || coalesce(any_value(container), '?')
        || coalesce('; last ended with ' || any_value(last_reason) || ' (' || any_value(last_exit_code) || ')', '')
        || coalesce('; ' || shortened(any_value(message), 240), '') || '.' AS summary,
    'select * from k8s_container where namespace || ''/'' || pod_name = ''' || any_value(pod) || '''' AS evidence,
    0.9 AS confidence, (count(*) * 1000000000)::BIGINT AS impact_ns, NULL::BIGINT AS first_ns, NULL::BIGINT AS last_ns,
    [workload] AS entities, list_append(list(pod), workload) AS explains
FROM _pod
WHERE trouble IS NOT NULL AND trouble <> 'Completed'
GROUP BY workload, trouble
