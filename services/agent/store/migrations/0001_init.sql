SELECT agentmesh.create_service_tables('agent');
SELECT agentmesh.create_idempotency_table('agent');

CREATE TABLE agent.sessions (
  tenant_id text NOT NULL,
  session_id text NOT NULL,
  -- The caller's own UUID for the session.
  external_id text,
  -- User that the session belongs to; '' for a session of a machine credential that named no user.
  end_user_id text NOT NULL,
  agent_id text NOT NULL,
  title text NOT NULL,
  labels jsonb NOT NULL,
  message_count integer NOT NULL DEFAULT 0,
  active_run_id text,
  version integer NOT NULL DEFAULT 1,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, session_id)
);
CREATE UNIQUE INDEX sessions_external ON agent.sessions (tenant_id, end_user_id, external_id)
  WHERE external_id IS NOT NULL;
CREATE INDEX sessions_newest ON agent.sessions (tenant_id, create_time DESC, session_id DESC);
CREATE INDEX sessions_of_user ON agent.sessions (tenant_id, end_user_id, create_time DESC, session_id DESC);
SELECT agentmesh.protect('agent.sessions');

CREATE TABLE agent.messages (
  tenant_id text NOT NULL,
  session_id text NOT NULL,
  position integer NOT NULL,
  message_id text NOT NULL,
  run_id text NOT NULL,
  -- The model port's message as it is stored and sent: role and content parts.
  message jsonb NOT NULL,
  -- Bytes of the message as JSON text, so that a history can be measured without being read.
  size integer NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, session_id, position),
  FOREIGN KEY (tenant_id, session_id) REFERENCES agent.sessions
);
SELECT agentmesh.protect('agent.messages');

CREATE TABLE agent.runs (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  session_id text NOT NULL,
  end_user_id text NOT NULL,
  agent_id text NOT NULL,
  agent_version integer NOT NULL,
  -- agentmesh.agent.v1.RunState and RunOutcome.
  state smallint NOT NULL,
  outcome smallint NOT NULL DEFAULT 0,
  -- google.rpc.Status and agentmesh.common.v1.UsageSummary, binary.
  error bytea,
  usage bytea,
  response text NOT NULL DEFAULT '',
  -- Who the run works for; a process that takes over continues as this principal.
  principal jsonb NOT NULL,
  -- The lease: who may write, until when, and the fence that every write carries.
  owner text NOT NULL,
  owner_address text NOT NULL,
  lease_expires timestamptz NOT NULL,
  epoch integer NOT NULL DEFAULT 1,
  -- Numbers up to this one belong to the current owner; the next owner begins above it.
  seq_reserved bigint NOT NULL,
  last_seq bigint NOT NULL DEFAULT 0,
  -- The step that has begun and is not completed; 0 when there is none.
  open_step integer NOT NULL DEFAULT 0,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  end_time timestamptz,
  PRIMARY KEY (tenant_id, run_id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES agent.sessions
);
-- QUEUED, RUNNING, SUSPENDED: one run at a time per session.
CREATE UNIQUE INDEX runs_active ON agent.runs (tenant_id, session_id) WHERE state IN (1, 2, 3);
CREATE INDEX runs_newest ON agent.runs (tenant_id, create_time DESC, run_id DESC);
CREATE INDEX runs_of_session ON agent.runs (tenant_id, session_id, create_time DESC, run_id DESC);
CREATE INDEX runs_leases ON agent.runs (lease_expires) WHERE state IN (1, 2);
SELECT agentmesh.protect('agent.runs');
SELECT agentmesh.worker_access('agent.runs', 'select, update (owner, owner_address, lease_expires, epoch, seq_reserved)');

CREATE TABLE agent.run_events (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  seq bigint NOT NULL,
  type text NOT NULL,
  -- agentmesh.agent.v1.AgentEvent, binary, exactly as it is shown.
  event bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, seq),
  FOREIGN KEY (tenant_id, run_id) REFERENCES agent.runs
);
SELECT agentmesh.protect('agent.run_events');
