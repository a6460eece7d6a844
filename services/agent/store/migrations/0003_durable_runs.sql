-- What runs are begun with, as agentmesh.config.v1.ResolveAgentResponse without the user's profile, binary; its id is its
-- SHA-256. Whoever takes a run up goes on with what it was begun with, and many runs share one.
CREATE TABLE agent.plans (
  tenant_id text NOT NULL,
  plan_id text NOT NULL,
  plan bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, plan_id)
);
SELECT agentmesh.protect('agent.plans');

ALTER TABLE agent.runs
  -- Null: a run of an earlier release, which nobody can take up.
  ADD COLUMN plan_id text,
  -- What else the run was begun with: {chosen: models, language}.
  ADD COLUMN begun_with jsonb,
  -- Times that a process has taken the run up.
  ADD COLUMN attempt integer NOT NULL DEFAULT 1;
GRANT UPDATE (attempt) ON agent.runs TO agentmesh_worker;

-- The open step of a run, when the model has asked for tools: all of the step that is in no event. Gone when the step is
-- completed.
CREATE TABLE agent.step_drafts (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  step integer NOT NULL,
  -- The engine's ModelUsage.
  usage jsonb NOT NULL,
  -- The model port's messages, with their ids.
  messages jsonb NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES agent.runs
);
SELECT agentmesh.protect('agent.step_drafts');
