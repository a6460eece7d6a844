-- The table behind idempotent(): what a request id was used for and what was answered. A service's first migration calls
-- this beside create_service_tables. Does nothing where the table exists.
CREATE FUNCTION agentmesh.create_idempotency_table(schema text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF to_regclass(format('%I.idempotency_keys', schema)) IS NOT NULL THEN
    RETURN;
  END IF;
  EXECUTE format($sql$
    CREATE TABLE %I.idempotency_keys (
      tenant_id text NOT NULL,
      subject text NOT NULL,
      method text NOT NULL,
      request_id text NOT NULL,
      request_hash bytea NOT NULL,
      response bytea,
      created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      PRIMARY KEY (tenant_id, subject, method, request_id)
    )$sql$, schema);
  EXECUTE format('CREATE INDEX idempotency_keys_age ON %I.idempotency_keys (created_at)', schema);
  PERFORM agentmesh.protect(format('%I.idempotency_keys', schema)::regclass);
  PERFORM agentmesh.worker_access(format('%I.idempotency_keys', schema)::regclass, 'select (created_at), delete');
END
$$;

REVOKE ALL ON FUNCTION agentmesh.create_idempotency_table(text) FROM PUBLIC;
