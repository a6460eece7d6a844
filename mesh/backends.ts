import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Bus } from "#platform/bus/bus.ts";
import { createBus } from "#platform/bus/create-bus.ts";
import type { Component, Module } from "#platform/module/module.ts";
import type { Connection } from "#platform/postgres/connection.ts";
import { type Database, openDatabase } from "#platform/postgres/database.ts";
import { startEmbeddedPostgres } from "#platform/postgres/embedded/server.ts";
import { migrate } from "#platform/postgres/migrate.ts";
import { assertMigrated } from "#platform/postgres/migration-state.ts";
import { createOutboxRelay, type OutboxRelay } from "#platform/postgres/outbox-relay.ts";
import { assertRoles } from "#platform/postgres/roles.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { createCache } from "#platform/redis/create-cache.ts";
import { createLimiter } from "#platform/redis/create-limiter.ts";
import { createPermits } from "#platform/redis/create-permits.ts";
import type { Limiter } from "#platform/redis/limiter.ts";
import type { Permits } from "#platform/redis/permits.ts";
import type { Log } from "#platform/telemetry/log.ts";
import type { MeshConfig } from "./config.ts";

/** The open backends of a process. Disposing closes them. */
export interface Backends extends AsyncDisposable {
  readonly database: Database;
  readonly bus: Bus;
  readonly cache: Cache;
  readonly limiter: Limiter;
  readonly permits: Permits;
  /** Not started: it may publish only while every consumer of this process is there. */
  readonly relay: OutboxRelay;
  readonly components: readonly Component[];
  /** Resolves when an embedded server has died. */
  readonly failure: Promise<Error>;
}

/** Opens Postgres (and migrates it when it is this process's own), the cache and the bus. */
export async function openBackends(
  config: MeshConfig,
  modules: readonly Pick<Module<unknown>, "schema">[],
  log: Log,
): Promise<Backends> {
  await using undo = new AsyncDisposableStack();
  const schemas = modules.flatMap(({ schema }) => (schema === undefined ? [] : [schema]));
  const services = schemas.map(({ name, migrations }) => ({ schema: name, dir: fileURLToPath(migrations) }));
  const { connection, failure, stop } = await openPostgres(config, services, log);
  undo.defer(stop);
  const database = undo.use(
    openDatabase({ connection, applicationName: "agentmesh", max: config.postgres.maxConnections }),
  );
  await assertMigrated(database, services);
  await assertRoles(database);
  const cache = undo.adopt(createCache({ url: config.redisUrl?.reveal(), log }), (open) => open.close());
  const limiter = undo.adopt(createLimiter({ url: config.redisUrl?.reveal(), log }), (open) => open.close());
  const permits = undo.adopt(createPermits({ url: config.redisUrl?.reveal(), log }), (open) => open.close());
  const bus = undo.adopt(createBus({ url: config.natsUrl?.reveal(), log }), (open) => open.close());
  const relay = createOutboxRelay({ db: database, schemas: schemas.map(({ name }) => name), bus, log });
  const owned = undo.move();
  return {
    database,
    bus,
    cache,
    limiter,
    permits,
    relay,
    failure,
    components: [
      component("postgres", true, config.embedded, (signal) => database.ping(signal)),
      component("redis", false, config.redisUrl === undefined, (signal) => cache.ping(signal)),
      component("nats", false, config.natsUrl === undefined, (signal) => bus.ping(signal)),
    ],
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

interface OpenPostgres {
  connection: Connection;
  failure: Promise<Error>;
  stop(): Promise<void>;
}

async function openPostgres(
  config: MeshConfig,
  services: { schema: string; dir: string }[],
  log: Log,
): Promise<OpenPostgres> {
  const { url } = config.postgres;
  if (url !== undefined) {
    return { connection: { url: url.reveal() }, failure: new Promise(() => {}), stop: async () => {} };
  }
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  const server = await startEmbeddedPostgres({ dataDir: config.dataDir, log });
  try {
    await migrate({ owner: server.owner, app: server.app, services });
  } catch (error) {
    await server.stop();
    throw error;
  }
  return { connection: server.app, failure: server.failure, stop: () => server.stop() };
}

function component(
  name: string,
  required: boolean,
  embedded: boolean,
  ping: (signal: AbortSignal) => Promise<void>,
): Component {
  return { name, required, kind: embedded ? "embedded" : "external", ping };
}
