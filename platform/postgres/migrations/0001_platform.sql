-- Two roles that nobody logs in as. They belong to the whole server and may exist already, made by another database of
-- it, perhaps at this moment.
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['agentmesh_app', 'agentmesh_worker'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
      END;
    END IF;
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA agentmesh TO agentmesh_app, agentmesh_worker;
-- So that a process can tell at its start whether the database is new enough.
GRANT SELECT ON agentmesh.migrations TO agentmesh_worker;

-- The tenant of the transaction. After one local setting a connection holds '' instead of nothing, so both raise.
CREATE FUNCTION agentmesh.current_tenant() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  tenant text := pg_catalog.current_setting('app.tenant_id', true);
BEGIN
  IF tenant IS NULL OR tenant = '' THEN
    RAISE EXCEPTION 'no tenant is set for this transaction' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN tenant;
END
$$;

-- Makes a table a tenant table: row-level security that holds for its owner too, one policy per command for
-- agentmesh_app, a check on the form of the tenant id, and the grants. To be called after its primary key exists.
CREATE FUNCTION agentmesh.protect("table" regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  -- As a subselect it is evaluated once per statement instead of once per row.
  own constant text := 'tenant_id = (SELECT agentmesh.current_tenant())';
  schema text := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = "table");
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = "table" AND i.indisprimary AND a.attname = 'tenant_id' AND a.atttypid = 'text'::regtype
  ) THEN
    RAISE EXCEPTION 'agentmesh.protect: % needs a column tenant_id text in its primary key', "table";
  END IF;
  EXECUTE format('ALTER TABLE %s ADD CONSTRAINT tenant_id_form CHECK (tenant_id ~ ''^ten_'')', "table");
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', "table");
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', "table");
  EXECUTE format('CREATE POLICY tenant_select ON %s FOR SELECT TO agentmesh_app USING (%s)', "table", own);
  EXECUTE format('CREATE POLICY tenant_insert ON %s FOR INSERT TO agentmesh_app WITH CHECK (%s)', "table", own);
  EXECUTE format('CREATE POLICY tenant_update ON %s FOR UPDATE TO agentmesh_app USING (%s) WITH CHECK (%2$s)', "table", own);
  EXECUTE format('CREATE POLICY tenant_delete ON %s FOR DELETE TO agentmesh_app USING (%s)', "table", own);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO agentmesh_app', "table");
  EXECUTE format('GRANT USAGE ON SCHEMA %s TO agentmesh_app', schema);
END
$$;

-- Lets agentmesh_worker reach all tenants' rows of a table: for outbox, queue, lease and credential-index tables only.
-- "privileges" is a list such as 'select, update (owner, expires_at)'; anything but these four commands is refused.
CREATE FUNCTION agentmesh.worker_access("table" regclass, privileges text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  privilege text;
  command text;
  schema text := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = "table");
BEGIN
  FOREACH privilege IN ARRAY regexp_split_to_array(lower(trim(privileges)), '\s*,\s*(?![^()]*\))') LOOP
    IF privilege !~ '^(delete|(select|insert|update)(\s*\([a-z0-9_]+(\s*,\s*[a-z0-9_]+)*\))?)$' THEN
      RAISE EXCEPTION 'agentmesh.worker_access: not a privilege: %', privilege;
    END IF;
    command := substring(privilege FROM '^[a-z]+');
    EXECUTE format('GRANT %s ON %s TO agentmesh_worker', privilege, "table");
    EXECUTE format('CREATE POLICY %I ON %s FOR %s TO agentmesh_worker %s', 'worker_' || command, "table", command,
      CASE command WHEN 'insert' THEN 'WITH CHECK (true)' WHEN 'update' THEN 'USING (true) WITH CHECK (true)' ELSE 'USING (true)' END);
  END LOOP;
  EXECUTE format('GRANT USAGE ON SCHEMA %s TO agentmesh_worker', schema);
END
$$;

-- The two tables that every service has: events to be published, written in the transaction of the change that they
-- speak of, and the audit trail. Does nothing where they exist.
CREATE FUNCTION agentmesh.create_service_tables(schema text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', schema);
  IF to_regclass(format('%I.outbox', schema)) IS NULL THEN
    EXECUTE format($sql$
      CREATE TABLE %I.outbox (
        tenant_id text NOT NULL,
        event_id text NOT NULL,
        position bigint GENERATED ALWAYS AS IDENTITY,
        subject text NOT NULL,
        payload bytea NOT NULL,
        headers jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        published_at timestamptz,
        attempts integer NOT NULL DEFAULT 0,
        retry_at timestamptz,
        PRIMARY KEY (tenant_id, event_id)
      )$sql$, schema);
    EXECUTE format('CREATE INDEX outbox_waiting ON %I.outbox (position) WHERE published_at IS NULL', schema);
    EXECUTE format('CREATE INDEX outbox_failed ON %I.outbox (tenant_id, subject, retry_at) WHERE published_at IS NULL AND retry_at IS NOT NULL', schema);
    EXECUTE format('CREATE INDEX outbox_published ON %I.outbox (published_at) WHERE published_at IS NOT NULL', schema);
    PERFORM agentmesh.protect(format('%I.outbox', schema)::regclass);
    EXECUTE format('REVOKE UPDATE, DELETE ON %I.outbox FROM agentmesh_app', schema);
    PERFORM agentmesh.worker_access(format('%I.outbox', schema)::regclass, 'select, update (published_at, attempts, retry_at), delete');
  END IF;
  IF to_regclass(format('%I.audit', schema)) IS NULL THEN
    EXECUTE format($sql$
      CREATE TABLE %I.audit (
        tenant_id text NOT NULL,
        id text NOT NULL,
        "time" timestamptz NOT NULL DEFAULT clock_timestamp(),
        type text NOT NULL,
        resource text,
        subject text NOT NULL,
        subject_tenant_id text NOT NULL,
        user_id text,
        credential_id text NOT NULL,
        actors text[] NOT NULL,
        ip text NOT NULL,
        user_agent text NOT NULL,
        request_id text NOT NULL,
        session_id text,
        details jsonb NOT NULL,
        result_length integer,
        duration_ms integer,
        PRIMARY KEY (tenant_id, id)
      )$sql$, schema);
    PERFORM agentmesh.protect(format('%I.audit', schema)::regclass);
    EXECUTE format('REVOKE UPDATE, DELETE ON %I.audit FROM agentmesh_app', schema);
  END IF;
END
$$;

-- These change tables, so only those who run migrations may call them; the tenant function is for the roles.
REVOKE ALL ON FUNCTION agentmesh.protect(regclass), agentmesh.worker_access(regclass, text),
  agentmesh.create_service_tables(text), agentmesh.current_tenant() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agentmesh.current_tenant() TO agentmesh_app;
