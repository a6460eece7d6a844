-- The tenant of the transaction as one expression that the planner puts into its place: every policy and every written row
-- asks for it, and a function in PL/pgSQL costs some microseconds each time. Nothing and '' raise as before.
CREATE FUNCTION agentmesh.no_tenant() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  RAISE EXCEPTION 'no tenant is set for this transaction' USING ERRCODE = 'insufficient_privilege';
END
$$;
REVOKE ALL ON FUNCTION agentmesh.no_tenant() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agentmesh.no_tenant() TO agentmesh_app;

CREATE OR REPLACE FUNCTION agentmesh.current_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT coalesce(nullif(pg_catalog.current_setting('app.tenant_id', true), ''), agentmesh.no_tenant())
$$;
