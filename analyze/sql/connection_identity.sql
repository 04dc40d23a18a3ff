-- One row: one connection with the pods, workloads and names of both its ends.
-- Inputs: connection, connection_peer, conntrack, outside_name, cgroup, process, k8s_object, k8s_pod, k8s_container,
--   k8s_service, k8s_endpoint, k8s_node, manifest_node
-- Columns:
--   connection_id BIGINT: the connection.
--   local_pod VARCHAR: pod of this end. NULL when it is no pod.
--   local_namespace VARCHAR: its namespace. NULL when it is no pod.
--   local_workload VARCHAR: name of its workload. NULL when it is no pod.
--   local_container VARCHAR: its container. NULL when not known.
--   local_version VARCHAR: version of the workload's pod template. NULL when not known.
--   local_node VARCHAR: node of this end. NULL when not known.
--   local_service VARCHAR: service this end answers for. NULL when none.
--   local_basis VARCHAR: how it is known: cgroup, address, none.
--   local_name VARCHAR: what reports call this end.
--   remote_pod VARCHAR: as for the local end.
--   remote_namespace VARCHAR: as for the local end.
--   remote_workload VARCHAR: as for the local end.
--   remote_container VARCHAR: its container: its own end's, else the only one of its pod, else the one that declares the
--     port. NULL when not known.
--   remote_version VARCHAR: as for the local end.
--   remote_node VARCHAR: as for the local end.
--   remote_service VARCHAR: service the other end is, or answers for. NULL when none.
--   remote_basis VARCHAR: how it is known: socket (its own end was recorded), position (the same, through NAT), conntrack
--     (the node's translation), address, service, node, sni, dns, known (a cloud's own fixed
--     address, of the cloud this node is in), none.
--   remote_name VARCHAR: what reports call the other end.
WITH _pod AS (
    SELECT DISTINCT ON (uid) uid, namespace, name, node, version, coalesce(owner_name, name) AS workload
    FROM k8s_pod ORDER BY uid, valid_from_ns DESC NULLS LAST
),
_static AS (
    -- The kubelet knows a static pod by the hash of its manifest, the API by the uid of its mirror.
    SELECT json_extract_string(object, '$.metadata.annotations."kubernetes.io/config.hash"') AS hash, any_value(uid) AS uid
    FROM k8s_object WHERE kind = 'Pod' AND contains(object, 'kubernetes.io/config.hash') GROUP BY hash
),
_cgroup AS (
    SELECT g.node, g.cgroup_id, any_value(g.container_id) AS container_id,
        any_value(coalesce(s.uid, g.pod_uid)) AS pod_uid
    FROM cgroup AS g LEFT JOIN _static AS s ON s.hash = g.pod_uid GROUP BY g.node, g.cgroup_id
),
_container AS (
    SELECT container_id, any_value(pod_uid) AS pod_uid, any_value(name) AS name
    FROM k8s_container WHERE container_id IS NOT NULL GROUP BY container_id
),
_serving AS (
    -- Init containers are over before a pod serves; sidecars are not.
    SELECT pod_uid, name, ports, count(*) OVER (PARTITION BY pod_uid) AS containers
    FROM (SELECT DISTINCT ON (pod_uid, name) pod_uid, name, ports FROM k8s_container
        WHERE kind IN ('app', 'sidecar') ORDER BY pod_uid, name, ports NULLS LAST)
),
_address AS (
    SELECT unnest(string_split(coalesce(ips, ip), ' ')) AS ip, uid, valid_from_ns, valid_to_ns
    FROM k8s_pod WHERE coalesce(ips, ip) IS NOT NULL AND NOT host_network
),
_virtual AS (
    SELECT ip, port, min(namespace) AS namespace, min(name) AS service
    FROM (
        SELECT unnest(string_split(concat_ws(' ', cluster_ips, external_ips), ' ')) AS ip, port, namespace, name
        FROM k8s_service
        UNION ALL
        SELECT unnest(string_split(n.ips, ' ')), s.node_port, s.namespace, s.name
        FROM k8s_service AS s CROSS JOIN k8s_node AS n WHERE s.node_port IS NOT NULL
    )
    GROUP BY ip, port
),
_backend AS (
    SELECT ip, port, min(namespace) AS namespace, min(service) AS service FROM k8s_endpoint GROUP BY ip, port
),
_host AS (
    SELECT ip, min(node) AS node
    FROM (SELECT unnest(string_split(ips, ' ')) AS ip, name AS node FROM k8s_node)
    GROUP BY ip
),
_fixed (provider, ip, name) AS (
    -- Addresses that a cloud serves its machines at; without a provider where they mean the same in every one.
    -- AWS: EC2 User Guide, "Link-local addresses", EKS Pod Identity; Azure: "What is IP address 168.63.129.16".
    VALUES (NULL, '169.254.169.254', 'instance metadata'), ('aws', 'fd00:ec2::254', 'instance metadata'),
        ('gce', 'fd20:ce::254', 'instance metadata'), ('azure', '168.63.129.16', 'Azure platform'),
        ('aws', '169.254.169.253', 'VPC resolver'), ('aws', 'fd00:ec2::253', 'VPC resolver'),
        ('aws', '169.254.169.123', 'Amazon time'), ('aws', 'fd00:ec2::123', 'Amazon time'),
        ('aws', '169.254.170.2', 'ECS credentials'), ('aws', '169.254.170.23', 'EKS pod identity'),
        ('aws', 'fd00:ec2::23', 'EKS pod identity')
),
_known AS (
    SELECT c.connection_id, any_value(f.name) AS name
    FROM connection AS c
    JOIN _fixed AS f ON f.ip = c.remote_ip
    LEFT JOIN k8s_node AS n ON n.name = c.node
    WHERE c.side <> 'server' AND (f.provider IS NULL OR f.provider = n.provider)
    GROUP BY c.connection_id
),
_when AS (
    SELECT c.connection_id, coalesce(c.start_ns, c.end_ns) + m.clock_offset_ns AS at_ns
    FROM connection AS c LEFT JOIN manifest_node AS m ON m.node = c.node
),
_ends AS (
    SELECT connection_id, 'local' AS which, local_ip AS ip, local_port AS port FROM connection
    UNION ALL
    SELECT connection_id, 'remote', remote_ip, remote_port FROM connection
),
_by_address AS (
    SELECT e.connection_id, e.which, a.uid
    FROM _ends AS e
    JOIN _address AS a USING (ip)
    JOIN _when AS w USING (connection_id)
    -- Of several pods that had the address in turn, the one that had it when the connection was seen.
    QUALIFY row_number() OVER (
        PARTITION BY e.connection_id, e.which
        ORDER BY (w.at_ns IS NULL OR (coalesce(a.valid_from_ns, 0) <= w.at_ns
                AND w.at_ns <= coalesce(a.valid_to_ns, 9223372036854775807))) DESC,
            a.valid_from_ns DESC NULLS LAST
    ) = 1
),
_local AS (
    SELECT c.connection_id, p.name AS pod, p.namespace, p.workload, k.name AS container, p.version,
        coalesce(p.node, h.node, CASE WHEN c.side <> 'wire' THEN c.node::VARCHAR END) AS node, b.service,
        CASE WHEN coalesce(k.pod_uid, g.pod_uid) = p.uid THEN 'cgroup' WHEN p.uid IS NOT NULL THEN 'address' ELSE 'none' END
            AS basis,
        coalesce(p.namespace || '/' || p.workload, q.command, c.local_ip) AS name
    FROM connection AS c
    LEFT JOIN _cgroup AS g ON g.node = c.node AND g.cgroup_id = c.cgroup_id
    LEFT JOIN _container AS k ON k.container_id = g.container_id
    LEFT JOIN _by_address AS a ON a.connection_id = c.connection_id AND a.which = 'local'
    LEFT JOIN _pod AS p ON p.uid = CASE
        WHEN coalesce(k.pod_uid, g.pod_uid) IN (SELECT uid FROM _pod) THEN coalesce(k.pod_uid, g.pod_uid) ELSE a.uid END
    LEFT JOIN process AS q ON q.node = c.node AND q.pid = c.pid
    LEFT JOIN _host AS h ON h.ip = c.local_ip
    LEFT JOIN _backend AS b ON b.ip = c.local_ip AND b.port = c.local_port
    QUALIFY row_number() OVER (PARTITION BY c.connection_id ORDER BY q.start_ns DESC NULLS LAST) = 1
),
_redirected AS (
    -- Its own pod's sidecar took the connection: the address is that of whom it asked for.
    SELECT m.connection_id
    FROM connection_peer AS m
    JOIN connection AS c USING (connection_id)
    JOIN connection AS p ON p.connection_id = m.peer_id
    JOIN _local AS l ON l.connection_id = m.connection_id
    JOIN _local AS r ON r.connection_id = m.peer_id
    LEFT JOIN _by_address AS a ON a.connection_id = c.connection_id AND a.which = 'remote'
    LEFT JOIN _pod AS o ON o.uid = a.uid
    WHERE c.side = 'client' AND c.node = p.node AND c.netns_id = p.netns_id AND l.pod = r.pod AND l.namespace = r.namespace
        AND l.container IS DISTINCT FROM r.container
        AND (o.uid IS NULL OR o.name <> l.pod OR o.namespace <> l.namespace)
        AND NOT (c.remote_ip LIKE '127.%' OR c.remote_ip = '::1')
),
_translated AS (
    -- Who answers for a virtual address, as the node's connection tracking has it.
    SELECT c.connection_id, any_value(t.reply_source_ip) AS ip, any_value(t.reply_source_port) AS port
    FROM connection AS c
    JOIN conntrack AS t
        ON t.node = c.node AND t.transport = c.transport AND t.original_source_ip = c.local_ip
        AND t.original_source_port = c.local_port AND t.original_destination_ip = c.remote_ip
        AND t.original_destination_port = c.remote_port
    WHERE t.reply_source_ip <> t.original_destination_ip
    GROUP BY c.connection_id
),
_behind AS (
    SELECT t.connection_id, t.port, a.uid
    FROM _translated AS t JOIN _address AS a USING (ip)
    QUALIFY row_number() OVER (PARTITION BY t.connection_id ORDER BY a.valid_from_ns DESC NULLS LAST) = 1
)
SELECT
    c.connection_id,
    l.pod AS local_pod, l.namespace AS local_namespace, l.workload AS local_workload, l.container AS local_container,
    l.version AS local_version, l.node AS local_node, l.service AS local_service, l.basis AS local_basis, l.name AS local_name,
    coalesce(r.pod, rt.name, rp.name) AS remote_pod,
    coalesce(r.namespace, rt.namespace, rp.namespace, rv.namespace, rb.namespace) AS remote_namespace,
    coalesce(r.workload, rt.workload, rp.workload) AS remote_workload,
    CASE WHEN r.connection_id IS NOT NULL THEN r.container ELSE (
        SELECT min(s.name) FROM _serving AS s
        WHERE s.pod_uid = coalesce(rt.uid, rp.uid) AND (s.containers = 1 OR list_contains(
            string_split(s.ports, ' '), coalesce(t.port, c.remote_port) || '/' || upper(c.transport)))
    ) END AS remote_container,
    coalesce(r.version, rt.version, rp.version) AS remote_version,
    coalesce(r.node, rt.node, rp.node, rh.node) AS remote_node,
    coalesce(rv.service, rb.service, r.service) AS remote_service,
    CASE WHEN m.basis = 'position' THEN 'position' WHEN r.connection_id IS NOT NULL THEN 'socket'
        WHEN rt.uid IS NOT NULL THEN 'conntrack' WHEN rp.uid IS NOT NULL THEN 'address'
        WHEN rv.service IS NOT NULL THEN 'service' WHEN rh.node IS NOT NULL THEN 'node'
        ELSE coalesce(o.basis, CASE WHEN x.name IS NOT NULL THEN 'known' END, 'none') END AS remote_basis,
    coalesce(r.name, rt.namespace || '/' || rt.workload, rp.namespace || '/' || rp.workload,
        rv.namespace || '/' || rv.service, rh.node, o.name, x.name, c.remote_ip) AS remote_name
FROM connection AS c
JOIN _local AS l USING (connection_id)
LEFT JOIN connection_peer AS m ON m.connection_id = c.connection_id
    AND m.connection_id NOT IN (SELECT connection_id FROM _redirected)
LEFT JOIN _local AS r ON r.connection_id = m.peer_id
LEFT JOIN _behind AS t ON t.connection_id = c.connection_id
LEFT JOIN _pod AS rt ON rt.uid = t.uid
LEFT JOIN _by_address AS ra ON ra.connection_id = c.connection_id AND ra.which = 'remote'
LEFT JOIN _pod AS rp ON rp.uid = ra.uid
LEFT JOIN _virtual AS rv ON rv.ip = c.remote_ip AND rv.port IS NOT DISTINCT FROM c.remote_port
LEFT JOIN _backend AS rb ON rb.ip = c.remote_ip AND rb.port = c.remote_port
LEFT JOIN _host AS rh ON rh.ip = c.remote_ip
LEFT JOIN outside_name AS o ON o.ip = c.remote_ip AND c.side <> 'server'
LEFT JOIN _known AS x ON x.connection_id = c.connection_id
