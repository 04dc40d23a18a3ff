-- The recording itself lacks events: some numbers are lower bounds.
-- Inputs: probe
-- Kind: notice
SELECT 'notice' AS severity, 'node' AS scope_kind, node AS scope,
    'The recording on ' || node || ' lost ' || lost_count || ' events of ' || probe AS title,
    'Of ' || (event_count + lost_count) || ' events ' || lost_count || ' are missing ('
        || round(100.0 * lost_count / (event_count + lost_count), 2) || ' %); counts are lower bounds.' AS summary,
    'select * from loss' AS evidence, 1.0 AS confidence, 0::BIGINT AS impact_ns, NULL::BIGINT AS first_ns,
    NULL::BIGINT AS last_ns, [node] AS entities
FROM probe WHERE lost_count > 0
