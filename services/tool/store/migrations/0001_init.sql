SELECT agentmesh.create_idempotency_table('tool');

-- Every execution of a tool, also those that failed; a repeated call is a row of its own. Never changed.
CREATE TABLE tool.tool_calls (
  tenant_id text NOT NULL,
  execution_id text NOT NULL,
  run_id text NOT NULL,
  session_id text NOT NULL,
  agent_id text NOT NULL,
  call_id text NOT NULL,
  tool text NOT NULL,
  -- Masked.
  arguments jsonb NOT NULL,
  -- Characters of text and bytes of images that the model was shown.
  result_length integer NOT NULL,
  is_error boolean NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('ok', 'invalid_arguments', 'tool_error', 'failed', 'timeout', 'cancelled')),
  duration_ms integer NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, execution_id)
);
CREATE INDEX tool_calls_of_run ON tool.tool_calls (tenant_id, run_id, call_id);
CREATE INDEX tool_calls_of_session ON tool.tool_calls (tenant_id, session_id, created_at);
SELECT agentmesh.protect('tool.tool_calls');
REVOKE UPDATE, DELETE ON tool.tool_calls FROM agentmesh_app;

-- The to-do list of a session. A new entry gets the number after the highest one.
CREATE TABLE tool.session_todos (
  tenant_id text NOT NULL,
  session_id text NOT NULL,
  item_id integer NOT NULL CHECK (item_id > 0),
  text text NOT NULL,
  done boolean NOT NULL DEFAULT false,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  completed_at timestamptz(3),
  PRIMARY KEY (tenant_id, session_id, item_id)
);
SELECT agentmesh.protect('tool.session_todos');
