-- A process started that servers seldom start: from a temporary folder, with its file gone, or talking to a mining pool.
-- Inputs: process, process_event, connection, cgroup, k8s_pod
-- Kind: root
WITH _mining AS (
    SELECT node, pid, min(remote_ip || ':' || remote_port) AS peer FROM connection
    WHERE side <> 'server' AND remote_port IN (3333, 4444, 5555, 7777, 14433, 14444, 45560, 45700) AND pid IS NOT NULL
        AND NOT regexp_matches(remote_ip, '^(127\.|::1$)') GROUP BY ALL
),
_reason AS (
    SELECT p.node, p.pid, p.command, p.executable, p.arguments, p.start_ns, p.cgroup_id,
        list_filter([
            CASE WHEN regexp_matches(p.executable, '^(/tmp|/var/tmp|/dev/shm|/run/user)/') THEN 'runs from a temporary folder' END,
            CASE WHEN p.executable_deleted AND NOT p.existed_before THEN 'its program file was deleted' END,
            CASE WHEN regexp_matches(lower(concat_ws(' ', p.command, p.arguments)), '(xmrig|minerd|cpuminer|stratum\+(tcp|ssl)://|cryptonight)')
                THEN 'its command line is that of a miner' END,
            CASE WHEN m.peer IS NOT NULL AND regexp_matches(p.executable, '^(/tmp|/var/tmp|/dev/shm)/')
                THEN 'connects to ' || m.peer || ', a port of mining pools' END
        ], lambda x: x IS NOT NULL) AS reasons
    FROM process AS p LEFT JOIN _mining AS m USING (node, pid)
)
SELECT
    CASE WHEN len(r.reasons) > 1 OR r.reasons[1] LIKE '%miner%' THEN 'critical' ELSE 'warning' END AS severity, 'process' AS scope_kind,
    r.node || '/' || r.pid AS scope,
    'Process ' || r.command || ' (' || r.pid || ')' || coalesce(' in pod ' || k.namespace || '/' || k.name, ' on ' || r.node) || ' '
        || array_to_string(r.reasons, ', ') AS title,
    'Program ' || coalesce(r.executable, '?') || coalesce(', arguments: ' || shortened(r.arguments, 200), '') || '.' AS summary,
    'select * from process where pid = ' || r.pid AS evidence, 0.7 AS confidence, 0::BIGINT AS impact_ns, realtime_ns(r.node, r.start_ns) AS first_ns,
    NULL::BIGINT AS last_ns, [r.node] AS entities, []::VARCHAR[] AS explains
FROM _reason AS r
LEFT JOIN cgroup AS c ON c.node = r.node AND c.cgroup_id = r.cgroup_id
LEFT JOIN k8s_pod AS k ON k.uid = c.pod_uid
WHERE len(r.reasons) > 0 AND r.executable IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY r.node, r.pid ORDER BY k.name NULLS LAST) = 1
