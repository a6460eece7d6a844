-- Two more ways in which a call ends.
ALTER TABLE tool.tool_calls DROP CONSTRAINT tool_calls_outcome_check;
ALTER TABLE tool.tool_calls ADD CONSTRAINT tool_calls_outcome_check CHECK (outcome IN
  ('ok', 'invalid_arguments', 'tool_error', 'failed', 'timeout', 'cancelled', 'permission_denied', 'rate_limited'));

-- A to-do list belongs to the user of its session; '' for a session without one.
ALTER TABLE tool.session_todos ADD COLUMN end_user_id text NOT NULL DEFAULT '';
ALTER TABLE tool.session_todos DROP CONSTRAINT session_todos_pkey;
ALTER TABLE tool.session_todos ADD PRIMARY KEY (tenant_id, session_id, end_user_id, item_id);

-- Whole outputs of which the model is shown less: those above the tool's limit, and those of ephemeral tools.
CREATE TABLE tool.tool_outputs (
  tenant_id text NOT NULL,
  session_id text NOT NULL,
  end_user_id text NOT NULL,
  call_id text NOT NULL,
  tool text NOT NULL,
  -- UTF-8 text, cut at a whole character when the output was larger than what is kept.
  content bytea NOT NULL,
  -- Bytes of the output before it was cut.
  whole_bytes bigint NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, session_id, end_user_id, call_id)
);
CREATE INDEX tool_outputs_age ON tool.tool_outputs (created_at);
SELECT agentmesh.protect('tool.tool_outputs');
SELECT agentmesh.worker_access('tool.tool_outputs', 'select (created_at), delete');
