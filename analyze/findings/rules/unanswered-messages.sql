-- Messages that ask for an answer through a broker get none.
-- Inputs: request, manifest_node
-- Kind: cause
-- Effect: timeout
WITH _message AS (
    SELECT client_name, server_name, resource, start_ns, operation LIKE '%PUB' AS is_sent, json_extract_string(attributes, '$.reply_to') AS reply_to
    FROM request WHERE protocol = 'nats' AND operation IN ('PUB', 'HPUB', 'MSG', 'HMSG')
),
_asked AS (
    -- One message is seen up to four times: sent and delivered, at both ends.
    SELECT reply_to, arg_min(resource, start_ns) AS subject, mode(client_name) FILTER (is_sent) AS asker,
        mode(client_name) FILTER (NOT is_sent) AS listener, any_value(server_name) AS broker, min(start_ns) AS start_ns
    FROM _message
    -- Whether a stream wants its deliveries acknowledged is the consumer's choice, and cannot be seen.
    WHERE reply_to IS NOT NULL AND NOT starts_with(reply_to, '$JS.ACK') GROUP BY reply_to
),
_subject AS (
    SELECT a.subject, a.asker, a.listener, a.broker, count(*) AS asked,
        count(*) FILTER (NOT is_answered) AS unanswered,
        min(a.start_ns) FILTER (NOT is_answered) AS first_ns, max(a.start_ns) FILTER (NOT is_answered) AS last_ns
    FROM (SELECT *, reply_to IN (SELECT resource FROM _message) AS is_answered FROM _asked) AS a
    -- Those of the last two seconds may still be answered.
    WHERE a.start_ns <= (SELECT max(start_ns + duration_ns) FROM manifest_node) - 2000000000
    GROUP BY a.subject, a.asker, a.listener, a.broker
)
SELECT
    'critical' AS severity, 'edge' AS scope_kind, coalesce(asker, '?') || ' -> ' || coalesce(listener, broker) AS scope,
    CASE WHEN listener IS NULL THEN 'Nobody answers' ELSE listener || ' does not answer' END || ' what ' || coalesce(asker, 'somebody') || ' asks through '
        || broker || ': ' || unanswered || ' of ' || asked || ' nats messages of ' || subject AS title,
    'They were sent with a subject for the answer, two seconds or more before the recording ended, and nothing came back. '
        || CASE WHEN listener IS NULL THEN 'They were delivered to nobody that was recorded.'
            ELSE 'They were delivered to ' || listener || ': it is stuck, or does not reply to such messages.' END AS summary,
    'select * from request where protocol = ''nats'' and resource = ''' || replace(subject, '''', '''''') || '''' AS evidence,
    0.85 AS confidence, (unanswered * 1000000000)::BIGINT AS impact_ns, first_ns, last_ns,
    list_filter([asker, listener, broker], lambda x: x IS NOT NULL) AS entities
FROM _subject
WHERE unanswered >= 3 AND unanswered >= 0.05 * asked
