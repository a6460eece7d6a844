ALTER TABLE agent.runs
  -- Nobody waits for it: its end is announced on the bus.
  ADD COLUMN background boolean NOT NULL DEFAULT false,
  -- When it ends whatever it has come to.
  ADD COLUMN deadline timestamptz,
  -- The run whose work it does again.
  ADD COLUMN retry_of text;

-- One run at a time per session is at work; others may be queued behind it.
DROP INDEX agent.runs_active;
CREATE UNIQUE INDEX runs_active ON agent.runs (tenant_id, session_id) WHERE state IN (2, 3);
-- Runs that nobody works on, and whose time may be over: QUEUED, SUSPENDED.
CREATE INDEX runs_deadlines ON agent.runs (deadline) WHERE deadline IS NOT NULL AND state IN (1, 3);

-- Runs that are begun from the queue, until they have ended.
CREATE TABLE agent.queued_runs (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  session_id text NOT NULL,
  -- The order in which the runs of a session, and of a tenant, are begun.
  position bigint GENERATED ALWAYS AS IDENTITY,
  -- What it shall do: the caller's input as it came.
  input jsonb NOT NULL,
  -- When it is dispatched, again if need be, should it not have begun by then; null: it has begun.
  due_at timestamptz,
  -- Times that somebody tried to begin it and did not say why it could not.
  attempts integer NOT NULL DEFAULT 0,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES agent.runs ON DELETE CASCADE
);
CREATE INDEX queued_runs_waiting ON agent.queued_runs (tenant_id, position, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX queued_runs_of_session ON agent.queued_runs (tenant_id, session_id, position) WHERE due_at IS NOT NULL;
SELECT agentmesh.protect('agent.queued_runs');
SELECT agentmesh.worker_access('agent.queued_runs', 'select (tenant_id, run_id, position, due_at), update (due_at)');

-- Queued work that was given up, for people to look at and to put back.
CREATE TABLE agent.dead_letters (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  session_id text NOT NULL,
  end_user_id text NOT NULL,
  agent_id text NOT NULL,
  -- Subject of its messages on the bus.
  subject text NOT NULL,
  -- What it was to do.
  input jsonb NOT NULL,
  -- Why it was given up: a reason of agentmesh.common.v1.ErrorReason, and the last error in words, without secrets.
  reason text NOT NULL,
  message text NOT NULL,
  attempts integer NOT NULL,
  -- When it was queued, and when it was given up.
  queue_time timestamptz NOT NULL,
  dead_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- The run that does it again, and since when.
  redriven_by text,
  redrive_time timestamptz,
  PRIMARY KEY (tenant_id, run_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES agent.runs ON DELETE CASCADE
);
CREATE INDEX dead_letters_newest ON agent.dead_letters (tenant_id, dead_time DESC, run_id DESC);
SELECT agentmesh.protect('agent.dead_letters');
