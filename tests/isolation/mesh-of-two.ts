import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { MODULES } from "#mesh/modules.ts";
import { startModelServer } from "#platform/testing/model-server/server.ts";
import { privateNats } from "#platform/testing/private-nats.ts";
import { type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import { privateRedis } from "#platform/testing/private-redis.ts";
import { newAdminKey } from "#tests/e2e/admin-key.ts";
import { spawnMesh } from "#tests/e2e/spawned-process.ts";

/** A gateway, and all services in a second process whose port takes hop tokens. */
export interface MeshOfTwo extends AsyncDisposable {
  readonly gatewayUrl: string;
  readonly servicesUrl: string;
  readonly adminKey: string;
  /** The root secret, from which the keys of hop tokens are derived. */
  readonly secret: Buffer;
  readonly database: TestDatabase;
  output(): string;
}

export async function startMeshOfTwo(): Promise<MeshOfTwo> {
  await using undo = new AsyncDisposableStack();
  const model = undo.use(await startModelServer({ record: false }));
  const services = Object.values(MODULES).flatMap(({ module: { schema } }) =>
    schema === undefined ? [] : [{ schema: schema.name, dir: fileURLToPath(schema.migrations) }],
  );
  const database = undo.use(await testDatabase({ services }));
  const redis = undo.use(await privateRedis());
  const nats = undo.use(await privateNats({ own: true }));
  const dataDir = await mkdtemp(join(tmpdir(), "two-"));
  undo.defer(() => rm(dataDir, { recursive: true, force: true }));
  const secret = randomBytes(32);
  const adminKey = newAdminKey();
  const shared = {
    AGENTMESH_LISTEN: "127.0.0.1",
    AGENTMESH_DATA_DIR: dataDir,
    AGENTMESH_SECRET: secret.toString("base64"),
    AGENTMESH_ADMIN_KEY: adminKey,
    AGENTMESH_SERVER__STOP_GRACE: "2s",
    DATABASE_URL: database.url,
    REDIS_URL: redis.url,
    NATS_URL: nats.url,
  };
  const names = Object.keys(MODULES).filter((name) => name !== "gateway");
  const all = await spawnMesh("services", {
    ...shared,
    MESH_TARGET: names.join(","),
    ANTHROPIC_API_KEY: "test-key",
    ANTHROPIC_BASE_URL: model.url,
  });
  undo.defer(async () => void (await all.stop()));
  const links = Object.fromEntries(names.map((name) => [`AGENTMESH_${name.toUpperCase()}_URL`, all.baseUrl]));
  const gateway = await spawnMesh("gateway", { ...shared, ...links, MESH_TARGET: "gateway" });
  undo.defer(async () => void (await gateway.stop()));
  const owned = undo.move();
  return {
    gatewayUrl: gateway.baseUrl,
    servicesUrl: all.baseUrl,
    adminKey,
    secret,
    database,
    output: () => `${gateway.output()}\n${all.output()}`,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
