-- Two more answers to a call: that of an earlier attempt, and that nobody knows what became of one.
ALTER TABLE tool.tool_calls DROP CONSTRAINT tool_calls_outcome_check;
ALTER TABLE tool.tool_calls ADD CONSTRAINT tool_calls_outcome_check CHECK (outcome IN
  ('ok', 'invalid_arguments', 'tool_error', 'failed', 'timeout', 'cancelled', 'permission_denied', 'rate_limited',
   'replayed', 'unknown'));

-- Calls that must not run twice: written before the tool runs, and what came of it after it.
CREATE TABLE tool.tool_journal (
  tenant_id text NOT NULL,
  -- '' for a call of no user.
  end_user_id text NOT NULL,
  request_key text NOT NULL,
  tool text NOT NULL,
  -- SHA-256 of tool, session and arguments.
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  session_id text NOT NULL,
  run_id text NOT NULL,
  call_id text NOT NULL,
  -- UNKNOWN is final: it has been told to a caller.
  state text NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'FINISHED', 'UNKNOWN')),
  -- The process that runs it.
  instance_id text NOT NULL,
  -- From when on a call that is still RUNNING has been lost with its process.
  unknown_after timestamptz(3) NOT NULL,
  -- JSON, as it was sent.
  result bytea CHECK ((result IS NOT NULL) = (state = 'FINISHED')),
  started_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  -- When it came into its state.
  changed_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, end_user_id, request_key)
);
CREATE INDEX tool_journal_age ON tool.tool_journal (changed_at);
SELECT agentmesh.protect('tool.tool_journal');
SELECT agentmesh.worker_access('tool.tool_journal', 'select (changed_at), delete');
