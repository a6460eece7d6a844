-- Sessions that were erased, for as long as a call of theirs may still be under way and write something: ids only.
CREATE TABLE tool.erased_sessions (
  tenant_id text NOT NULL,
  session_id text NOT NULL,
  erased_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, session_id)
);
CREATE INDEX erased_sessions_age ON tool.erased_sessions (erased_at);
SELECT agentmesh.protect('tool.erased_sessions');
SELECT agentmesh.worker_access('tool.erased_sessions', 'select');

CREATE INDEX tool_journal_of_session ON tool.tool_journal (tenant_id, session_id);

-- What is booked or logged stays; what it says of a session that is erased does not.
GRANT UPDATE (arguments) ON tool.tool_calls TO agentmesh_app;
GRANT UPDATE (session_id) ON tool.demo_orders TO agentmesh_app;
GRANT UPDATE (session_id, note) ON tool.demo_transfers TO agentmesh_app;
