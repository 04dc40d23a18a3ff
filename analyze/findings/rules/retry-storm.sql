-- A client repeats what fails, at once and again and again: most of its requests are repetitions.
-- Inputs: request, child_call
-- Kind: root
-- Effect: failure
WITH _asked AS (
    SELECT client_name, server_name, protocol, operation, coalesce(resource, '?') AS resource, start_ns,
        coalesce(status, CASE outcome WHEN 'no_response' THEN 'no answer' END, 'failed') AS status,
        is_error OR outcome IN ('no_response', 'truncated') AS is_failed, latency_ns, parent_request_id,
        lag(is_error OR outcome IN ('no_response', 'truncated')) OVER w AS was_failed,
        start_ns - lag(coalesce(end_ns, start_ns)) OVER w AS gap_ns
    FROM request LEFT JOIN (SELECT DISTINCT ON (request_id) request_id, parent_request_id FROM child_call) USING (request_id)
    WHERE side IN ('client', 'wire') AND outcome <> 'no_request' AND protocol NOT IN ('dns', 'mdns', 'llmnr', 'tls', 'websocket')
        -- Who is refused at the door comes again: that makes no load inside.
        AND operation IS DISTINCT FROM 'LOGIN'
    -- The same thing asked by the same thread, and on behalf of the same request where that is known.
    WINDOW w AS (PARTITION BY node, pid, tid, parent_request_id, client_ip, server_name, protocol, operation, coalesce(statement, resource)
        ORDER BY start_ns, request_id)
),
_edge AS (
    SELECT client_name, server_name, protocol, count(*) AS requests,
        count(*) FILTER (was_failed AND gap_ns <= 1000000 * getvariable('retry_ms')) AS retries,
        -- What failed and was no repetition itself.
        count(*) FILTER (is_failed AND NOT (coalesce(was_failed, false) AND gap_ns <= 1000000 * getvariable('retry_ms'))) AS origins,
        count(*) FILTER (was_failed AND gap_ns <= 1000000 * getvariable('retry_ms') AND parent_request_id IS NOT NULL) AS in_one_request,
        -- One who asks one thing all the time repeats failures no faster than successes.
        median(gap_ns) FILTER (was_failed) AS failed_gap_ns, median(gap_ns) FILTER (NOT was_failed) AS answered_gap_ns,
        mode(operation || ' ' || resource) FILTER (is_failed) AS what, mode(status) FILTER (is_failed) AS status,
        coalesce(sum(latency_ns) FILTER (is_failed), 0)::BIGINT AS failed_ns,
        min(start_ns) FILTER (is_failed) AS first_ns, max(start_ns) FILTER (is_failed) AS last_ns
    FROM _asked GROUP BY ALL
)
SELECT
    'critical' AS severity, 'edge' AS scope_kind, client_name || ' -> ' || server_name AS scope,
    client_name || ' repeats what fails at ' || server_name || ': ' || round(100.0 * retries / requests) || ' % of its ' || protocol
        || ' requests are retries, ' || round(retries / origins, 1) || ' for each failure (' || status || '): ' || shortened(what, 90) AS title,
    requests || ' requests, of them ' || retries || ' the repetition of one that had failed less than '
        || round(getvariable('retry_ms')) || ' ms before; without them there were ' || (requests - retries)
        || '. The failure is what to mend; retries without growing pauses and without a budget make a load of it.' AS summary,
    'select * from logical_request where is_error and client_name = ''' || client_name || ''' and server_name = ''' || server_name || ''''
        AS evidence,
    0.9 AS confidence, (failed_ns + retries * 10000000)::BIGINT AS impact_ns, first_ns, last_ns, [client_name, server_name] AS entities,
    [server_name] AS explains
FROM _edge
WHERE retries >= 20 AND origins > 0 AND retries >= getvariable('retry_factor') * origins AND retries >= 0.3 * requests
    -- Where nothing succeeds there is no pace to compare with: then what is repeated on behalf of one request is a retry, or
    -- what comes at once. A visitor that comes again a second later is none.
    AND CASE WHEN answered_gap_ns IS NOT NULL THEN failed_gap_ns <= 0.5 * answered_gap_ns
        ELSE in_one_request >= 0.5 * retries OR failed_gap_ns <= 100000 * getvariable('retry_ms') END
