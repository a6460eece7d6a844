ALTER TABLE agent.sessions
  -- Deleted: gone for every caller; the row and what hangs on it wait for their erasure.
  ADD COLUMN deleted_at timestamptz,
  -- From when on the session is deleted because nobody has used it; null: it is kept.
  ADD COLUMN expire_time timestamptz,
  -- The newest row of agent.compactions, so that a locked session says exactly what a model is shown of it.
  ADD COLUMN compaction_id text;
UPDATE agent.sessions s SET compaction_id = c.newest
FROM (SELECT tenant_id, session_id, max(compaction_id) AS newest FROM agent.compactions GROUP BY tenant_id, session_id) c
WHERE s.tenant_id = c.tenant_id AND s.session_id = c.session_id;

-- A caller's UUID may be used again at once.
DROP INDEX agent.sessions_external;
CREATE UNIQUE INDEX sessions_external ON agent.sessions (tenant_id, end_user_id, external_id)
  WHERE external_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX sessions_deleted ON agent.sessions (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX sessions_expiring ON agent.sessions (expire_time) WHERE expire_time IS NOT NULL AND deleted_at IS NULL;
-- The clean-up job learns ids and times, and nothing of what was said.
SELECT agentmesh.worker_access('agent.sessions', 'select (tenant_id, session_id, deleted_at, expire_time)');

ALTER TABLE agent.runs
  -- From when on the events of the run are pruned, once it has ended; null: they are kept.
  ADD COLUMN expire_time timestamptz,
  -- Events up to this number are pruned; 0: none is.
  ADD COLUMN pruned_seq bigint NOT NULL DEFAULT 0;
CREATE INDEX runs_expiring ON agent.runs (expire_time) WHERE expire_time IS NOT NULL AND state IN (4, 5, 6);

