-- What a turn costs the database (ADR 0024).

-- Each of these was a lookup and a lock of the parent's row per row that a turn writes. The statements that write the rows
-- write or hold the parent in the same breath.
ALTER TABLE agent.runs DROP CONSTRAINT runs_tenant_id_session_id_fkey;
ALTER TABLE agent.messages DROP CONSTRAINT messages_tenant_id_session_id_fkey;
ALTER TABLE agent.run_events DROP CONSTRAINT run_events_tenant_id_run_id_fkey;

-- Until a table is analysed for the first time the planner takes every index that begins with the tenant for as good as
-- the primary key, and of equals the newest: so the key is made anew behind the indexes that lists use. What refers to it
-- is put back.
DO $$
DECLARE
  keyed regclass;
  key record;
  referring text[];
BEGIN
  FOREACH keyed IN ARRAY ARRAY['agent.sessions', 'agent.runs']::regclass[] LOOP
    SELECT conname, pg_get_constraintdef(oid) AS definition INTO STRICT key
      FROM pg_constraint WHERE conrelid = keyed AND contype = 'p';
    referring := ARRAY(
      SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE confrelid = keyed AND contype = 'f');
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', keyed, key.conname);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', keyed, key.conname, key.definition);
    FOR i IN 1 .. cardinality(referring) LOOP
      EXECUTE referring[i];
    END LOOP;
  END LOOP;
END
$$;
