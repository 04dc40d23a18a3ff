-- A workload has fewer ready replicas than it should.
-- Inputs: k8s_workload
-- Kind: cause
SELECT
    CASE WHEN ready_count = 0 THEN 'critical' ELSE 'warning' END AS severity, 'workload' AS scope_kind, namespace || '/' || name AS scope,
    namespace || '/' || name || ' has ' || ready_count || ' of ' || desired_count || ' replicas ready' AS title,
    kind || ' ' || name || ': ' || coalesce(updated_count || ' of the newest version, ', '') || coalesce(available_count, 0) || ' available.'
        AS summary,
    'select * from k8s_workload where name = ''' || name || '''' AS evidence, 0.9 AS confidence,
    ((desired_count - ready_count) * 1000000000)::BIGINT AS impact_ns, NULL::BIGINT AS first_ns, NULL::BIGINT AS last_ns,
    [namespace || '/' || name] AS entities
FROM k8s_workload
WHERE kind IN ('Deployment', 'StatefulSet', 'DaemonSet', 'Rollout') AND desired_count > 0 AND coalesce(ready_count, 0) < desired_count
    AND ready_count IS NOT NULL
