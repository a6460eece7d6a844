ALTER TABLE agent.runs
  -- What a SUSPENDED run waits for: [{call_id, tool, kind, approval_id}], kind as agentmesh.agent.v1.AwaitedKind.
  ADD COLUMN awaiting jsonb,
  -- Why a run that nobody owns goes on; whoever takes it up takes it away.
  ADD COLUMN resume_cause text;
GRANT UPDATE (resume_cause) ON agent.runs TO agentmesh_worker;

-- Questions to people about one call each, which runs wait for.
CREATE TABLE agent.approvals (
  tenant_id text NOT NULL,
  approval_id text NOT NULL,
  run_id text NOT NULL,
  session_id text NOT NULL,
  agent_id text NOT NULL,
  end_user_id text NOT NULL,
  call_id text NOT NULL,
  tool text NOT NULL,
  -- agentmesh.agent.v1.ApprovalKind and ApprovalState, agentmesh.common.v1.RiskClass.
  kind smallint NOT NULL,
  state smallint NOT NULL,
  risk smallint NOT NULL,
  -- Exactly what will be executed, and its SHA-256 in lower-case hexadecimal.
  arguments_json text NOT NULL,
  arguments_sha256 text NOT NULL,
  -- The tool's JSON Schema, as JSON text, for edited arguments.
  schema_json text NOT NULL,
  reason text NOT NULL,
  -- The run's user cannot decide either.
  requires_other_principal boolean NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  expire_time timestamptz NOT NULL,
  resolve_time timestamptz,
  -- The credential's subject, and what was said.
  resolved_by text NOT NULL DEFAULT '',
  comment text NOT NULL DEFAULT '',
  -- Arguments in place of the original ones, and a result in place of the tool's; '' for none.
  edited_arguments_json text NOT NULL DEFAULT '',
  answer_json text NOT NULL DEFAULT '',
  PRIMARY KEY (tenant_id, approval_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES agent.runs
);
CREATE INDEX approvals_newest ON agent.approvals (tenant_id, create_time DESC, approval_id DESC);
CREATE INDEX approvals_of_run ON agent.approvals (tenant_id, run_id);
-- PENDING: one question at a time about a call.
CREATE UNIQUE INDEX approvals_pending ON agent.approvals (tenant_id, run_id, call_id) WHERE state = 1;
CREATE INDEX approvals_due ON agent.approvals (expire_time) WHERE state = 1;
SELECT agentmesh.protect('agent.approvals');
SELECT agentmesh.worker_access('agent.approvals', 'select (tenant_id, approval_id, run_id, state, expire_time)');
