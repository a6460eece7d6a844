-- What agents are told of a tenant's users.
CREATE TABLE config.user_profiles (
  tenant_id text NOT NULL REFERENCES config.tenants,
  -- The user, as the tenant's callers name them.
  end_user_id text NOT NULL,
  version bigint NOT NULL CHECK (version > 0),
  -- The rest of agentmesh.config.v1.UserProfile, in protobuf's JSON with proto names.
  settings jsonb NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, end_user_id)
);
SELECT agentmesh.protect('config.user_profiles');

-- A tenant's own keys for model providers, sealed by the vault.
CREATE TABLE config.model_credentials (
  tenant_id text NOT NULL REFERENCES config.tenants,
  llm_provider text NOT NULL,
  -- Never falls, not by a deletion either: breakers and limits are kept by it.
  version bigint NOT NULL CHECK (version > 0),
  -- NULL: deleted.
  sealed_key bytea,
  base_url text NOT NULL,
  key_suffix text NOT NULL,
  -- When its use was last written to the audit.
  audited_at timestamptz,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, llm_provider)
);
SELECT agentmesh.protect('config.model_credentials');
