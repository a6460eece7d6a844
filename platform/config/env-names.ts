/** Variables that say which configuration to read, and those that are read before there is one (platform/process/failpoint.ts). */
export const META_NAMES = [
  "AGENTMESH_ENV",
  "AGENTMESH_CONFIG",
  "AGENTMESH_FAILPOINTS",
  "AGENTMESH_FAILPOINTS_IN_PRODUCTION",
  "AGENTMESH_FAILPOINTS_WAIT",
] as const;

const PREFIX = "AGENTMESH_";

/** Keys that have a customary environment variable besides their `AGENTMESH_A__B` form. */
const CUSTOMARY: Readonly<Record<string, string>> = {
  "postgres.url": "DATABASE_URL",
  "postgres.owner_url": "DATABASE_OWNER_URL",
  "redis.url": "REDIS_URL",
  "nats.url": "NATS_URL",
  "qdrant.url": "QDRANT_URL",
  "server.port": "PORT",
  "server.listen": "AGENTMESH_LISTEN",
  "server.advertise": "AGENTMESH_ADVERTISE",
  "mesh.target": "MESH_TARGET",
  "mesh.secret": "AGENTMESH_SECRET",
  "mesh.data_dir": "AGENTMESH_DATA_DIR",
  "mesh.greet": "AGENTMESH_GREET",
  "auth.admin_key": "AGENTMESH_ADMIN_KEY",
  "models.anthropic.api_key": "ANTHROPIC_API_KEY",
  "models.anthropic.base_url": "ANTHROPIC_BASE_URL",
  "models.openai.api_key": "OPENAI_API_KEY",
  "models.openai.base_url": "OPENAI_BASE_URL",
  "telemetry.trace.endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
};

/** The variable that overrides a key: `AGENTMESH_AGENT__LEASE_TTL` for `agent.lease_ttl`. */
export function overrideName(key: string): string {
  return PREFIX + key.toUpperCase().replaceAll(".", "__");
}

/** The customary variable of a key, if there is one; `links.<service>` has `AGENTMESH_<SERVICE>_URL`. */
export function customaryName(key: string): string | undefined {
  const [, service] = /^links\.([a-z0-9_]+)$/.exec(key) ?? [];
  return service === undefined ? CUSTOMARY[key] : `${PREFIX}${service.toUpperCase()}_URL`;
}

// Kubernetes and Docker links put these into every container for a service called agentmesh or agentmesh-*, with
// values such as tcp://10.0.0.7:8080. They are nobody's configuration.
const INJECTED = /_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/;

/** Whether a variable claims to be ours, so that it has to be known. */
export function isOurs(name: string, value: string): boolean {
  return name.startsWith(PREFIX) && !INJECTED.test(name) && !(name.endsWith("_PORT") && /^\w+:\/\//.test(value));
}
