-- One row: the name of one address that belongs to nothing in the cluster, as the recording told it.
-- Inputs: _request
-- Columns:
--   ip VARCHAR: the address.
--   name VARCHAR: the name asked for.
--   basis VARCHAR: sni (a TLS client named it to the server there) or dns (an answer gave this address for it).
WITH _said AS (
    SELECT server_ip AS ip, lower(resource) AS name, 'sni' AS basis, count(*) AS times
    FROM _request WHERE protocol = 'tls' AND resource IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT address, resource, 'dns', count(*)
    FROM (
        SELECT unnest(from_json(attributes, '{"addresses": ["VARCHAR"]}').addresses) AS address, resource
        FROM _request WHERE protocol = 'dns' AND attributes LIKE '%"addresses"%'
    )
    GROUP BY ALL
)
SELECT ip, arg_max(name, (basis = 'sni', times, name)) AS name, arg_max(basis, (basis = 'sni', times, name)) AS basis
FROM _said WHERE name <> '' GROUP BY ip ORDER BY ip
