import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { MODULES } from "#mesh/modules.ts";
import type { Query } from "#platform/testing/find-text.ts";
import { type ModelServer, startModelServer } from "#platform/testing/model-server/server.ts";
import { privateNats } from "#platform/testing/private-nats.ts";
import { skipWithoutPostgres, testDatabase } from "#platform/testing/private-postgres.ts";
import { privateRedis } from "#platform/testing/private-redis.ts";
import { newAdminKey } from "./admin-key.ts";
import { composeServices, interpolate } from "./compose.ts";
import { type SpawnedProcess, spawnMesh } from "./spawned-process.ts";

export const MODES = ["embedded", "distributed"] as const;
export type Mode = (typeof MODES)[number];

/** A running mesh with a scripted model server behind it. */
export interface MeshUnderTest {
  readonly mode: Mode;
  readonly baseUrl: string;
  readonly adminKey: string;
  readonly model: ModelServer;
  /** The processes by name: `all`, or `gateway`, `auth`, `agent`, `agent-2`, … */
  readonly processes: ReadonlyMap<string, SpawnedProcess>;
  /** One statement behind the mesh's back, as the database's superuser. */
  readonly query: Query;
  /** Starts one more gateway, which is given this replica of the agent service. Distributed only; ends with the mesh. */
  gatewayTo(agent: string): Promise<SpawnedProcess>;
  stop(): Promise<void>;
}

/** Short times, so that a dead owner is noticed within a test. */
const SHORT_TIMES = {
  AGENTMESH_AGENT__LEASE: "1s",
  AGENTMESH_AGENT__HEARTBEAT: "300ms",
  AGENTMESH_AGENT__REAPER_INTERVAL: "200ms",
  AGENTMESH_AGENT__RETENTION_INTERVAL: "500ms",
  AGENTMESH_SERVER__STOP_GRACE: "5s",
};

/**
 * Runs the same tests against the mesh in one process with embedded backends, and with one process per service over
 * gRPC on private PostgreSQL, Redis and NATS servers.
 */
export function describeMesh(
  title: string,
  body: (mesh: () => MeshUnderTest) => void,
  modes: readonly Mode[] = MODES,
): void {
  for (const mode of modes) {
    const skip = mode === "distributed" ? skipWithoutPostgres() : false;
    describe(`${title} (${mode})`, { skip }, () => {
      let mesh: MeshUnderTest | undefined;
      before(async () => {
        mesh = await startMesh(mode);
      });
      after(async () => {
        await mesh?.stop();
      });
      body(() => mesh as MeshUnderTest);
    });
  }
}

export async function startMesh(mode: Mode, settings: Record<string, string> = {}): Promise<MeshUnderTest> {
  return mode === "embedded" ? startEmbedded(settings) : startDistributed(settings);
}

async function startEmbedded(settings: Record<string, string>): Promise<MeshUnderTest> {
  await using undo = new AsyncDisposableStack();
  const model = undo.use(await startModelServer());
  const dataDir = await mkdtemp(join(tmpdir(), "mesh-"));
  undo.defer(() => rm(dataDir, { recursive: true, force: true }));
  const all = await spawnMesh("all", {
    ...SHORT_TIMES,
    ...modelSettings(model),
    AGENTMESH_DATA_DIR: dataDir,
    ...settings,
  });
  undo.defer(async () => void (await all.stop()));
  const adminKey = (await readFile(join(dataDir, "admin-key"), "utf8")).trim();
  const query = queryOf(await embeddedDatabase(dataDir), undo);
  return { ...meshOf("embedded", all.baseUrl, adminKey, model, [all], undo.move()), query };
}

async function startDistributed(settings: Record<string, string>): Promise<MeshUnderTest> {
  await using undo = new AsyncDisposableStack();
  const model = undo.use(await startModelServer());
  const services = Object.values(MODULES).flatMap(({ module: { schema } }) =>
    schema === undefined ? [] : [{ schema: schema.name, dir: fileURLToPath(schema.migrations) }],
  );
  const database = undo.use(await testDatabase({ services }));
  const redis = undo.use(await privateRedis());
  const nats = undo.use(await privateNats({ own: true }));
  const adminKey = newAdminKey();
  const dataDir = await mkdtemp(join(tmpdir(), "mesh-"));
  undo.defer(() => rm(dataDir, { recursive: true, force: true }));
  const variables = {
    AGENTMESH_SECRET: randomBytes(32).toString("base64"),
    AGENTMESH_ADMIN_KEY: adminKey,
    POSTGRES_PASSWORD: "unused",
    ANTHROPIC_API_KEY: "test-key",
    ANTHROPIC_BASE_URL: model.url,
  };
  // What Compose's network does by host names is done here by ports.
  const own = {
    ...SHORT_TIMES,
    AGENTMESH_LISTEN: "127.0.0.1",
    AGENTMESH_DATA_DIR: dataDir,
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    NATS_URL: nats.url,
    ...settings,
  };
  let gatewaySettings: Record<string, string> = {};
  const started = new Map<string, SpawnedProcess>();
  const start = async (name: string, environment: Record<string, string>) => {
    const process = await spawnMesh(name, environment);
    started.set(name, process);
    undo.defer(async () => void (await process.stop()));
  };
  // Services before those that call them; of replicas the first is the one that callers are given.
  for (const { name, replicas, environment } of composeServices().toReversed()) {
    const filled = Object.fromEntries(
      Object.entries(environment).map(([key, value]) => [key, interpolate(String(value), variables)]),
    );
    const addressed = Object.entries(filled).map(([key, value]) => [key, localAddress(value, started)]);
    const merged = { ...Object.fromEntries(addressed), ...own };
    if (name === "gateway") gatewaySettings = merged;
    await Promise.all(Array.from({ length: replicas }, (_, i) => start(i === 0 ? name : `${name}-${i + 1}`, merged)));
  }
  const gateway = started.get("gateway") as SpawnedProcess;
  const owned = undo.move();
  return {
    ...meshOf("distributed", gateway.baseUrl, adminKey, model, [...started.values()], owned),
    query: queryOf({ connectionString: database.superuserUrl }, owned),
    async gatewayTo(agent) {
      const url = started.get(agent)?.baseUrl ?? "";
      const another = await spawnMesh(`gateway to ${agent}`, { ...gatewaySettings, AGENTMESH_AGENT_URL: url });
      owned.defer(async () => void (await another.stop()));
      return another;
    },
  };
}

/** `http://tool:8080` of Compose's network, as the port on which that process listens here. */
function localAddress(value: string, started: ReadonlyMap<string, SpawnedProcess>): string {
  const [, host] = /^http:\/\/([a-z-]+):8080$/.exec(value) ?? [];
  return host === undefined ? value : (started.get(host)?.baseUrl ?? value);
}

function modelSettings(model: ModelServer): Record<string, string> {
  return { ANTHROPIC_API_KEY: "test-key", ANTHROPIC_BASE_URL: model.url };
}

function meshOf(
  mode: Mode,
  baseUrl: string,
  adminKey: string,
  model: ModelServer,
  processes: readonly SpawnedProcess[],
  owned: AsyncDisposableStack,
): Omit<MeshUnderTest, "query"> {
  return {
    mode,
    baseUrl,
    adminKey,
    model,
    processes: new Map(processes.map((process) => [process.name, process])),
    gatewayTo: () => Promise.reject(new Error("the embedded mesh is one process")),
    stop: () => owned.disposeAsync(),
  };
}

/** Where a mesh's own PostgreSQL listens: the server has written it down. */
async function embeddedDatabase(dataDir: string): Promise<pg.ClientConfig> {
  const home = join(dataDir, "postgres");
  const [, , , , socket = ""] = (await readFile(join(home, "data/postmaster.pid"), "utf8")).split("\n");
  const { superuser } = JSON.parse(await readFile(join(home, "credentials.json"), "utf8"));
  return { host: socket, user: "postgres", password: superuser, database: "agentmesh" };
}

/** Statements on one connection, which is closed before what `owned` holds so far. */
function queryOf(connection: pg.PoolConfig, owned: AsyncDisposableStack): Query {
  const pool = new pg.Pool({ ...connection, max: 1 });
  pool.on("error", () => {});
  owned.defer(() => pool.end());
  return async (sql, params) => (await pool.query(sql, [...params])).rows;
}
