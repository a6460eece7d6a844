-- Calls of tools that a run's caller executes, from when the run waits for them.
CREATE TABLE agent.client_calls (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  call_id text NOT NULL,
  session_id text NOT NULL,
  tool text NOT NULL,
  -- WAITING, ANSWERED, EXPIRED, CANCELLED.
  state text NOT NULL DEFAULT 'WAITING',
  -- SHA-256 of the result that was handed in: what was answered once is answered again, and nothing else.
  answer_sha256 bytea,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  expire_time timestamptz NOT NULL,
  resolve_time timestamptz,
  PRIMARY KEY (tenant_id, run_id, call_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES agent.runs
);
CREATE INDEX client_calls_due ON agent.client_calls (expire_time) WHERE state = 'WAITING';
SELECT agentmesh.protect('agent.client_calls');
SELECT agentmesh.worker_access('agent.client_calls', 'select (tenant_id, run_id, call_id, state, expire_time)');
