SELECT agentmesh.create_idempotency_table('config');

CREATE TABLE config.tenants (
  tenant_id text PRIMARY KEY,
  status text NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
  -- Rises with every change; also the version for conditional changes.
  epoch bigint NOT NULL CHECK (epoch > 0),
  -- The rest of agentmesh.config.v1.Tenant, in protobuf's JSON with proto names.
  settings jsonb NOT NULL,
  -- Milliseconds, as cursors have them.
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tenants_newest ON config.tenants (created_at DESC, tenant_id DESC);
SELECT agentmesh.protect('config.tenants');
-- The installation's register of tenants, which platform administrators list across tenants. Read there only.
SELECT agentmesh.worker_access('config.tenants', 'select');

CREATE TABLE config.agents (
  tenant_id text NOT NULL REFERENCES config.tenants,
  agent_id text NOT NULL,
  name text NOT NULL,
  is_default boolean NOT NULL,
  version integer NOT NULL CHECK (version > 0),
  -- The rest of agentmesh.config.v1.Agent, in protobuf's JSON with proto names.
  settings jsonb NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, agent_id)
);
CREATE UNIQUE INDEX agents_name ON config.agents (tenant_id, name);
CREATE UNIQUE INDEX agents_default ON config.agents (tenant_id) WHERE is_default;
CREATE INDEX agents_newest ON config.agents (tenant_id, created_at DESC, agent_id DESC);
SELECT agentmesh.protect('config.agents');

-- Every version that an agent ever had; kept when the agent is deleted, since runs refer to them. Never changed.
CREATE TABLE config.agent_versions (
  tenant_id text NOT NULL,
  agent_id text NOT NULL,
  version integer NOT NULL,
  name text NOT NULL,
  is_default boolean NOT NULL,
  settings jsonb NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, agent_id, version)
);
SELECT agentmesh.protect('config.agent_versions');
REVOKE UPDATE, DELETE ON config.agent_versions FROM agentmesh_app;
