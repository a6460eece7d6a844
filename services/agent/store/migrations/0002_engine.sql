-- What an agent has asked people for: {reason, priority, run_id, create_time}; null for a conversation that waits for nobody.
ALTER TABLE agent.sessions ADD COLUMN escalation jsonb;

-- What a model is shown of a session instead of all of it: the newest row counts. The messages themselves stay.
CREATE TABLE agent.compactions (
  tenant_id text NOT NULL,
  session_id text NOT NULL,
  compaction_id text NOT NULL,
  run_id text NOT NULL,
  -- Positions of messages that stay in front of the summary, and of the first one behind it.
  kept_positions integer[] NOT NULL,
  first_kept_position integer NOT NULL,
  -- The hidden message that holds the summary, as the model port has it, and its id.
  summary_id text NOT NULL,
  summary jsonb NOT NULL,
  -- Messages that it stands for; estimated tokens of the request before and after.
  messages integer NOT NULL,
  tokens_before bigint NOT NULL,
  tokens_after bigint NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, session_id, compaction_id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES agent.sessions
);
SELECT agentmesh.protect('agent.compactions');

-- The ledger: one row per call of a model. It outlives the session that it was made for, without the user's name.
CREATE TABLE agent.model_calls (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  entry_id text NOT NULL,
  session_id text NOT NULL,
  agent_id text NOT NULL,
  end_user_id text NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  -- agentmesh.agent.v1.ModelCallPurpose.
  purpose smallint NOT NULL,
  -- The classes do not overlap.
  input_tokens bigint NOT NULL,
  cache_read_tokens bigint NOT NULL,
  cache_write_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  -- Null: no price was known.
  cost_nano_usd bigint,
  -- The call broke off; what it had used by then is booked.
  aborted boolean NOT NULL,
  -- It was made with the tenant's own credential.
  own_credential boolean NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, entry_id)
);
SELECT agentmesh.protect('agent.model_calls');
