ALTER TABLE agent.runs
  -- Messages in run_inputs: sent to the run while it lives, and not taken in yet. Its last write must find none left.
  ADD COLUMN inputs_pending integer NOT NULL DEFAULT 0;

ALTER TABLE agent.step_drafts
  -- The run in whose name the calls were asked for and are keyed; null: this one. Set where a retry goes on with the calls
  -- of the run that it continues.
  ADD COLUMN asked_in text;

-- What was sent to a run while it lives and is not in its session yet. Gone when the run has taken it in.
CREATE TABLE agent.run_inputs (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  -- The order in which they came: numbers are given under the lock of the run's row.
  input_number bigint GENERATED ALWAYS AS IDENTITY,
  message_id text NOT NULL,
  -- The model port's message, as it will be stored.
  message jsonb NOT NULL,
  -- What is to be told of it: [{reason, message, facts}].
  notices jsonb NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, input_number),
  FOREIGN KEY (tenant_id, run_id) REFERENCES agent.runs
);
SELECT agentmesh.protect('agent.run_inputs');

ALTER TABLE agent.sessions
  -- The session that this one is a copy of, and the last message that was copied.
  ADD COLUMN forked_from_session_id text,
  ADD COLUMN forked_from_message_id text;
