import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { MODULES } from "#mesh/modules.ts";
import { freePort } from "#platform/testing/free-port.ts";
import { type ModelServer, startModelServer } from "#platform/testing/model-server/server.ts";
import { type OwnNats, privateNats } from "#platform/testing/private-nats.ts";
import { type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import { type OwnRedis, privateRedis } from "#platform/testing/private-redis.ts";
import { newAdminKey } from "#tests/e2e/admin-key.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { type SpawnedProcess, spawnMesh } from "#tests/e2e/spawned-process.ts";
import { ASKS_FIRST } from "./history.ts";
import { type OwnPostgres, startOwnPostgres } from "./own-postgres.ts";
import { SIDE_EFFECTS_URL } from "./recording-plugin.ts";
import { type ModelBooks, scriptModel } from "./scripted-model.ts";
import { type SideEffects, startSideEffects } from "./side-effects.ts";

export const LEASE_MS = 1_000;

/** A process that is killed and started again at the same address. */
export interface Replica {
  readonly name: string;
  readonly baseUrl: string;
  readonly process: SpawnedProcess;
  kill(): Promise<void>;
  /** Starts it again; `failpoints` wait in it for a SIGUSR2. */
  start(failpoints?: string): Promise<void>;
}

/**
 * A mesh that a test may break: gateways, three agents and one process with the other services, on a PostgreSQL, Redis
 * and NATS of its own; leases are a second long.
 */
export interface FaultMesh extends AsyncDisposable {
  readonly gateways: readonly SpawnedProcess[];
  readonly agents: readonly Replica[];
  /** The process of auth, config and tool. */
  readonly services: Replica;
  readonly adminKey: string;
  /** Of somebody else of the same tenant, who decides what people are asked. */
  readonly approverKey: string;
  readonly postgres: OwnPostgres;
  readonly database: TestDatabase;
  readonly redis: OwnRedis;
  readonly nats: OwnNats;
  readonly model: ModelServer;
  readonly books: ModelBooks;
  readonly world: SideEffects;
  /** What the processes have complained of, for a test that failed. */
  complaints(): string;
}

const SETTINGS = {
  AGENTMESH_ENV: "production",
  AGENTMESH_LISTEN: "127.0.0.1",
  AGENTMESH_AGENT__LEASE: `${LEASE_MS}ms`,
  AGENTMESH_AGENT__HEARTBEAT: "300ms",
  AGENTMESH_AGENT__REAPER_INTERVAL: "200ms",
  // Owners die faster here than anywhere else.
  AGENTMESH_AGENT__MAX_ATTEMPTS: "100",
  // A queued run whose worker dies before it has begun is given to another one then.
  AGENTMESH_AGENT__QUEUE__ORPHAN_AFTER: "2s",
  AGENTMESH_AGENT__QUEUE__MAX_ATTEMPTS: "100",
  AGENTMESH_AGENT__QUEUE__SWEEP_INTERVAL: "300ms",
  AGENTMESH_AGENT__STREAM_HEARTBEAT: "1s",
  AGENTMESH_SERVER__STOP_GRACE: "3s",
  AGENTMESH_POSTGRES__MAX_CONNECTIONS: "12",
  AGENTMESH_TELEMETRY__LOG__LEVEL: "warn",
  AGENTMESH_PLUGINS__MODULES: join(import.meta.dirname, "recording-plugin.ts"),
};

const BREAKS = { AGENTMESH_FAILPOINTS_IN_PRODUCTION: "yes", AGENTMESH_FAILPOINTS_WAIT: "yes" };

/** The callers are to reach the runs, not the edge's limits. */
const NO_RATES = Object.fromEntries(
  ["KEY_READS", "KEY_RUNS", "KEY_WRITES", "TENANT_READS", "TENANT_RUNS", "TENANT_WRITES"].map((rate) => [
    `AGENTMESH_GATEWAY__RATES__${rate}`,
    "0",
  ]),
);

export interface FaultMeshOptions {
  /** Default 1. */
  readonly gateways?: number;
  /** Default 3. */
  readonly agents?: number;
  /** The edge limits rates as it does by default; else not at all. */
  readonly usualRates?: boolean;
  /** Environment of every process. */
  readonly settings?: Readonly<Record<string, string>>;
}

export async function startFaultMesh(options: FaultMeshOptions = {}): Promise<FaultMesh> {
  await using undo = new AsyncDisposableStack();
  const [model, world, postgres, redis, nats] = await Promise.all([
    startModelServer(),
    startSideEffects(),
    startOwnPostgres(),
    privateRedis({ own: true }),
    privateNats({ own: true }),
  ]);
  for (const owned of [model, world, postgres, redis, nats]) undo.use(owned);
  const books = scriptModel(model);
  const services = Object.values(MODULES).flatMap(({ module: { schema } }) =>
    schema === undefined ? [] : [{ schema: schema.name, dir: fileURLToPath(schema.migrations) }],
  );
  const database = await testDatabase({ services, server: postgres });
  undo.defer(() => database.db.close());
  const dataDir = await mkdtemp(join(tmpdir(), "faults-"));
  undo.defer(() => rm(dataDir, { recursive: true, force: true }));
  const adminKey = newAdminKey();
  const shared = {
    ...SETTINGS,
    ...(options.usualRates === true ? {} : NO_RATES),
    AGENTMESH_SECRET: randomBytes(32).toString("base64"),
    AGENTMESH_ADMIN_KEY: adminKey,
    AGENTMESH_DATA_DIR: dataDir,
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    NATS_URL: nats.url,
    ANTHROPIC_API_KEY: "test-key",
    ANTHROPIC_BASE_URL: model.url,
    [SIDE_EFFECTS_URL]: world.url,
    ...options.settings,
  };
  const others = await startReplica("services", { ...shared, MESH_TARGET: "auth,config,tool" });
  undo.defer(() => others.kill());
  const links = Object.fromEntries(["AUTH", "CONFIG", "TOOL"].map((name) => [`AGENTMESH_${name}_URL`, others.baseUrl]));
  const agents = await Promise.all(
    Array.from({ length: options.agents ?? 3 }, (_, i) =>
      startReplica(`agent-${i + 1}`, { ...shared, ...links, MESH_TARGET: "agent" }),
    ),
  );
  for (const agent of agents) undo.defer(() => agent.kill());
  const toAgents = { AGENTMESH_AGENT_URL: agents.map(({ baseUrl }) => baseUrl).join(",") };
  const gateways = await Promise.all(
    Array.from({ length: options.gateways ?? 1 }, (_, i) =>
      spawnMesh(`gateway-${i + 1}`, { ...shared, ...links, ...toAgents, MESH_TARGET: "gateway" }),
    ),
  );
  for (const gateway of gateways) undo.defer(async () => void (await gateway.stop()));
  const approverKey = await equip(new RestClient((gateways[0] as SpawnedProcess).baseUrl, adminKey));
  const owned = undo.move();
  return {
    gateways,
    agents,
    services: others,
    adminKey,
    approverKey,
    postgres,
    database,
    redis,
    nats,
    model,
    books,
    world,
    complaints: () =>
      [others.process, ...gateways, ...agents.map(({ process }) => process)].flatMap(complaintsOf).join("\n"),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function startReplica(name: string, settings: Record<string, string>): Promise<Replica> {
  const port = String(await freePort());
  const spawn = (failpoints = "") =>
    spawnMesh(name, {
      ...settings,
      PORT: port,
      ...(failpoints === "" ? {} : { ...BREAKS, AGENTMESH_FAILPOINTS: failpoints }),
    });
  let running = await spawn();
  return {
    name,
    baseUrl: running.baseUrl,
    get process() {
      return running;
    },
    kill: () => running.kill(),
    async start(failpoints) {
      running = await spawn(failpoints);
    },
  };
}

/** Gives the default agent the tools of these tests, and makes a key for who allows their calls. */
async function equip(rest: RestClient): Promise<string> {
  const done = async (method: string, path: string, sent?: object) => {
    const { status, body } = await rest.call(method, path, sent);
    if (status !== 200) throw new Error(JSON.stringify(body));
    return body;
  };
  const tools = ["act_once", "act_again", ASKS_FIRST];
  await done("PATCH", "/api/v1/tenants/me", { enabled_tools: tools });
  const { agents } = await done("GET", "/api/v1/tenants/me/agents");
  const agent = agents.find((one: { is_default: boolean }) => one.is_default);
  await done("PATCH", `/api/v1/tenants/me/agents/${agent.agent_id}`, { tools });
  const scopes = ["approvals:read", "approvals:resolve"];
  return (await done("POST", "/api/v1/api-keys", { name: "approver", scopes })).secret;
}

/** The first and the last warnings of a process. */
function complaintsOf({ name, output }: SpawnedProcess): string[] {
  const lines = output()
    .split("\n")
    .filter((line) => !line.includes('"level":"info"') && line.trim() !== "")
    .map((line) => `${name}: ${line.slice(0, 1_500)}`);
  return lines.length > 6 ? [...lines.slice(0, 3), `${name}: and ${lines.length - 6} more`, ...lines.slice(-3)] : lines;
}
