-- A client opens a connection for nearly each request to a database, cache or broker, and setting it up takes much of the time.
-- Inputs: request, connection, connection_health
-- Kind: cause
-- Effect: slowness
WITH _first AS (
    -- What makes a connection usable is no use of it.
    SELECT connection_id, any_value(protocol) AS protocol, count(*) AS requests, min(start_ns) AS first_ns, max(start_ns) AS last_ns,
        coalesce(sum(latency_ns), 0)::BIGINT AS work_ns
    FROM request
    WHERE side <> 'server' AND outcome = 'complete' AND protocol IN ('mysql', 'postgresql', 'redis', 'mongodb', 'tds', 'cassandra',
            'clickhouse', 'memcached', 'amqp', 'ldap', 'zookeeper')
        AND NOT regexp_matches(operation, '^(LOGIN|COM_QUIT|COM_INIT_DB|Startup|SSLRequest|GSSENCRequest|Terminate|HELLO|AUTH|CLIENT|SELECT|QUIT|hello|isMaster|ismaster|saslStart|saslContinue|OPTIONS|STARTUP|AUTH_RESPONSE|Connection\.|Channel\.)')
        AND NOT regexp_matches(coalesce(statement, ''), '(?i)^\s*(set|use|show|begin|commit|rollback|discard|select @@)\b')
    GROUP BY connection_id
),
_made AS (
    SELECT h.client_name, h.server_name, f.protocol, f.requests, f.work_ns,
        c.end_ns IS NOT NULL AS is_closed,
        realtime_ns(c.node, c.start_ns) AS start_ns, f.first_ns, f.last_ns,
        greatest(0, f.first_ns - realtime_ns(c.node, c.start_ns)) AS setup_ns
    FROM _first AS f JOIN connection AS c USING (connection_id) JOIN connection_health AS h USING (connection_id)
    WHERE c.start_ns IS NOT NULL AND NOT c.existed_before AND h.client_name <> h.server_name
),
_edge AS (
    SELECT client_name, server_name, protocol, count(*) AS connections, sum(requests)::BIGINT AS requests,
        avg(is_closed::INTEGER) AS closed, quantile_disc(setup_ns, 0.5) AS setup_p50_ns, sum(setup_ns) / (sum(setup_ns) + sum(work_ns)) AS share,
        sum(setup_ns)::BIGINT AS setup_ns, min(start_ns) AS first_ns, max(last_ns) AS last_ns
    FROM _made GROUP BY ALL
)
SELECT
    CASE WHEN setup_p50_ns >= 1000000 * getvariable('connect_ms') AND share >= 0.5 THEN 'warning' ELSE 'notice' END AS severity,
    'edge' AS scope_kind, client_name || ' -> ' || server_name AS scope,
    client_name || ' opens a connection to ' || server_name || ' for nearly each request: ' || connections || ' for ' || requests || ' '
        || protocol || ' requests, set up in ' || as_ms(setup_p50_ns) || ' (p50)' AS title,
    'Connecting, encrypting and logging in took ' || round(100 * share) || ' % of the time of those connections; the requests themselves took the rest. '
        || 'A pool of connections that are kept would save it.' AS summary,
    'select * from connection join connection_health using (connection_id) where client_name = ''' || client_name || ''' and server_name = '''
        || server_name || '''' AS evidence,
    0.85 AS confidence, setup_ns AS impact_ns, first_ns, last_ns, [client_name, server_name] AS entities
FROM _edge
-- A pool that has just been filled is none.
WHERE connections >= 20 AND requests < 2 * connections AND closed >= 0.8 AND share >= 0.3
