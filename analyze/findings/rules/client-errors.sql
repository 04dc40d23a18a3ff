-- An endpoint answers most of its requests with an error that it calls the caller's fault: a wrong path, a missing right, a bad request.
-- Inputs: logical_request
-- Kind: cause
-- Effect: failure
WITH _endpoint AS (
    SELECT client_name, server_name, protocol, concat_ws(' ', operation, resource) AS endpoint, count(*) AS requests,
        count(*) FILTER (is_error AND error_kind = 'client') AS errors, mode(status) FILTER (is_error AND error_kind = 'client') AS status,
        mode(error_message) FILTER (is_error AND error_kind = 'client') AS message,
        coalesce(sum(latency_ns) FILTER (is_error), 0)::BIGINT AS impact_ns,
        min(start_ns) FILTER (is_error) AS first_ns, max(start_ns) FILTER (is_error) AS last_ns
    FROM logical_request
    -- A name that does not exist is a finding of its own.
    WHERE outcome <> 'no_request' AND protocol NOT IN ('dns', 'mdns', 'llmnr', 'tls')
        -- Drivers try newer commands on older servers as they connect.
        AND NOT (protocol = 'redis' AND operation IN ('CLIENT', 'HELLO', 'COMMAND', 'AUTH'))
    GROUP BY ALL
),
_worst AS (
    SELECT * FROM (
        SELECT *, sum(requests) OVER w AS all_requests, count(*) FILTER (errors >= 20) OVER w AS endpoints FROM _endpoint
        WINDOW w AS (PARTITION BY client_name, server_name, protocol))
    WHERE errors >= 0.05 * all_requests AND errors >= 20 AND errors >= getvariable('client_error_ratio') * requests
    QUALIFY row_number() OVER (PARTITION BY client_name, server_name, protocol ORDER BY errors DESC) = 1
)
SELECT
    'warning' AS severity, 'edge' AS scope_kind, client_name || ' -> ' || server_name AS scope,
    server_name || ' refuses ' || round(100.0 * errors / requests) || ' % of the ' || protocol || ' requests of ' || client_name || ' for '
        || shortened(endpoint, 100) || ', mostly with ' || coalesce(status, '?') AS title,
    errors || ' of ' || requests || ' requests' || coalesce('; most often: ' || shortened(message, 200), '')
        || CASE WHEN endpoints > 1 THEN '; ' || (endpoints - 1) || ' more endpoints likewise' ELSE '' END
        || '. The server is well; what is asked for is not there, or not allowed, or wrong.' AS summary,
    'select * from logical_request where is_error and error_kind = ''client'' and server_name = ''' || server_name || '''' AS evidence,
    -- A failure costs its user more than the time it took.
    0.7 AS confidence, (impact_ns + errors * 500000000)::BIGINT AS impact_ns, first_ns, last_ns, [client_name, server_name] AS entities
FROM _worst
