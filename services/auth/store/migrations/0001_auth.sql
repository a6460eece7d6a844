SELECT agentmesh.create_idempotency_table('auth');

-- Who may be let in at all; fed by config's events. An older epoch never replaces a newer one.
CREATE TABLE auth.tenants (
  tenant_id text PRIMARY KEY,
  status text NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
  epoch bigint NOT NULL
);
SELECT agentmesh.protect('auth.tenants');

CREATE TABLE auth.api_keys (
  tenant_id text NOT NULL,
  api_key_id text NOT NULL,
  name text NOT NULL,
  scopes text[] NOT NULL,
  -- Empty for a machine credential.
  user_id text NOT NULL,
  -- 'call': created by an RPC; 'given', 'generated': the administrator's key of the first tenant.
  origin text NOT NULL CHECK (origin IN ('call', 'given', 'generated')),
  -- Milliseconds, as cursors have them.
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz(3),
  revoked_at timestamptz(3),
  PRIMARY KEY (tenant_id, api_key_id)
);
CREATE INDEX api_keys_newest ON auth.api_keys (tenant_id, created_at DESC, api_key_id DESC);
SELECT agentmesh.protect('auth.api_keys');

-- The credential index: finds a key's tenant before any tenant is known, so the worker role sees all of it and nothing
-- else of a key. The digest is HMAC-SHA-256 of the secret under the pepper of that id; the secret itself is nowhere.
CREATE TABLE auth.credentials (
  tenant_id text NOT NULL,
  api_key_id text NOT NULL,
  pepper_id text NOT NULL,
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  last_used_at timestamptz(0),
  PRIMARY KEY (tenant_id, api_key_id),
  FOREIGN KEY (tenant_id, api_key_id) REFERENCES auth.api_keys
);
-- Across tenants on purpose: key ids are ours, random, and never chosen by a caller, so uniqueness tells nobody anything.
CREATE UNIQUE INDEX credentials_by_key ON auth.credentials (api_key_id);
SELECT agentmesh.protect('auth.credentials');
SELECT agentmesh.worker_access('auth.credentials', 'select, update (last_used_at)');
