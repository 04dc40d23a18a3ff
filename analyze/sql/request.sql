-- One row: one request seen from one side (the client's socket, the server's socket, or the wire).
-- Inputs: _request
-- Columns:
--   request_id BIGINT: unique in the bundle.
SELECT
    * EXCLUDE (client_ip, client_port, server_ip, server_port, error_message, rows_sent, rows_affected, parameters,
        attributes, inferred, request_position, response_position, response_tid),
    client_ip, client_port, server_ip, server_port,
    NULL::VARCHAR AS client_pod, NULL::VARCHAR AS client_workload, NULL::VARCHAR AS client_namespace, NULL::VARCHAR AS client_node,
    NULL::VARCHAR AS server_pod, NULL::VARCHAR AS server_workload, NULL::VARCHAR AS server_namespace, NULL::VARCHAR AS server_node,
    NULL::VARCHAR AS server_service,
    error_message, rows_sent, rows_affected, parameters, attributes, inferred, request_position, response_position, response_tid
FROM _request
