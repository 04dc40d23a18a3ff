-- Requests to a server stay without an answer.
-- Inputs: logical_request, manifest_node
-- Kind: cause
-- Effect: timeout
WITH _pod AS (
    SELECT server_name, protocol, coalesce(server_namespace || '/' || server_pod, server_name) AS pod, mode(client_name) AS client,
        count(*) AS requests, count(*) FILTER (outcome = 'no_response') AS unanswered,
        min(start_ns) FILTER (outcome = 'no_response') AS first_ns, max(start_ns) FILTER (outcome = 'no_response') AS last_ns,
        -- How long they have been waiting when the recording ended, or were given up.
        sum((SELECT max(start_ns + duration_ns) FROM manifest_node) - start_ns) FILTER (outcome = 'no_response') AS waited_ns,
        median((SELECT max(start_ns + duration_ns) FROM manifest_node) - start_ns) FILTER (outcome = 'no_response') AS age_ns
    FROM logical_request WHERE outcome IN ('complete', 'no_response', 'truncated') AND protocol NOT IN ('dns', 'mdns', 'llmnr')
    GROUP BY ALL
)
SELECT
    'critical' AS severity, 'pod' AS scope_kind, pod AS scope,
    pod || ' does not answer: ' || unanswered || ' of ' || requests || ' ' || protocol || ' requests, asked by ' || client AS title,
    'They were sent (p50) ' || as_ms(age_ns::BIGINT) || ' before the end of the recording and got no answer until then: the server hangs, '
        || 'or its packets do not arrive.' AS summary,
    'select * from logical_request where outcome = ''no_response'' and server_name = ''' || server_name || '''' AS evidence,
    0.85 AS confidence, waited_ns::BIGINT AS impact_ns, first_ns, last_ns, [server_name, pod] AS entities,
    [client || ' -> ' || server_name] AS about
FROM _pod
WHERE unanswered >= 3 AND unanswered >= 0.02 * requests AND age_ns >= 2000000000
