import { randomBytes } from "node:crypto";
import type { DescService } from "@bufbuild/protobuf";
import { type CallOptions, type Client, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.ts";
import type { Bus } from "#platform/bus/bus.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { loadConfig } from "#platform/config/load.ts";
import { newId } from "#platform/id.ts";
import type { Module, Platform, Running } from "#platform/module/module.ts";
import type { Database } from "#platform/postgres/database.ts";
import { createOutboxRelay } from "#platform/postgres/outbox-relay.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { EmbeddedLimiter } from "#platform/redis/embedded-limiter.ts";
import { EmbeddedPermits } from "#platform/redis/embedded-permits.ts";
import { type Call, onward } from "#platform/rpc/call.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { openTestMesh, rejection } from "#platform/rpc/test-mesh.contract.ts";
import { createPageTokens } from "#platform/secrets/page-token.ts";
import { type RootSecret, rootSecret } from "#platform/secrets/root-secret.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { createMetrics, type Metrics } from "#platform/telemetry/metrics.ts";

export interface ServiceUnderTestOptions {
  /** A database with the migrations of the module; stays open. */
  readonly database: Database;
  /** Configuration as in YAML; no file and no variable of the environment is read. */
  readonly values?: object;
  /** Default: an embedded one of its own. */
  readonly bus?: Bus;
  readonly cache?: Cache;
  readonly root?: RootSecret;
  readonly mode?: Platform["mode"];
  /** Default: none; a module that writes there fails. */
  readonly dataDir?: string;
  /** Whether its outbox is published; default true. */
  readonly relay?: boolean;
}

/** One instance of a service: its module, started, behind the real pipeline, called over a link with hop tokens. */
export interface ServiceUnderTest extends AsyncDisposable {
  readonly running: Running;
  readonly bus: Bus;
  readonly metrics: Metrics;
  /** What it has logged: one parsed line each. */
  readonly logged: readonly Readonly<Record<string, unknown>>[];
  /** A client; every call needs the options of {@link callAs}. */
  client<S extends DescService>(service: S): Client<S>;
}

/** Options of a call on behalf of this principal. */
export function callAs(principal: Principal, more: Partial<Call> = {}): CallOptions {
  const signal = new AbortController().signal;
  return onward({ principal, signal, requestId: newId("req"), ip: "203.0.113.9", userAgent: "test/1", ...more });
}

/** A caller of a tenant: a machine credential unless `more` binds it to a user. */
export function principalOf(tenantId: string, scopes: readonly string[], more: Partial<Principal> = {}): Principal {
  const key = newId("key");
  return { tenantId, subject: key, scopes, credentialId: key, actors: [], ...more };
}

/** What an error says to a caller, without what differs from call to call. */
export function saying(error: unknown) {
  const { code, rawMessage } = ConnectError.from(error);
  return { code, message: rawMessage, reason: reasonOf(error), facts: factsOf(error) };
}

/** What a call is refused with. Fails when it is not. */
export async function refusal(call: PromiseLike<unknown>) {
  return saying(await rejection(call));
}

/** The fields that a call is refused for. */
export async function violations(call: PromiseLike<unknown>): Promise<string[]> {
  const details = ConnectError.from(await rejection(call)).findDetails(BadRequestSchema);
  return details.flatMap(({ fieldViolations }) => fieldViolations.map(({ field }) => field));
}

/** Builds the module over a platform of its own and starts it. */
export async function serviceUnderTest<C>(
  module: Module<C>,
  options: ServiceUnderTestOptions,
): Promise<ServiceUnderTest> {
  const logged: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void logged.push(JSON.parse(line)) };
  const log = createLog({ level: "debug", service: module.name, destination });
  const metrics = createMetrics({ process: false });
  const root = options.root ?? rootSecret([randomBytes(32)]);
  const bus = options.bus ?? new EmbeddedBus({ log });
  const schemas = module.schema === undefined ? [] : [module.schema.name];
  const relay = createOutboxRelay({ db: options.database, schemas, bus, log, pollMs: 100 });
  const config = loadConfig((source) => module.config(source), { env: {}, dir: false, values: options.values ?? {} });
  const routed: { running?: Running } = {};
  const mesh = await openTestMesh("memory", {
    [module.name]: {
      services: module.services,
      routes(router, links) {
        routed.running = module.create(config, {
          mode: options.mode ?? "embedded",
          instanceId: newId("ins"),
          ownAddress: "http://this-process.invalid",
          dataDir: options.dataDir ?? "/nonexistent",
          log,
          metrics,
          database: options.database,
          bus,
          // A module that asks for a cache which its test does not give fails at its first use.
          cache: options.cache as Cache,
          limiter: new EmbeddedLimiter(),
          permits: new EmbeddedPermits(),
          links,
          rootSecret: root,
          pageTokens: createPageTokens(root),
          components: [],
          health: { ready: () => true, services: () => [], onChange: () => () => {} },
        });
        routed.running.routes(router);
      },
    },
  });
  const { running } = routed;
  if (running === undefined) throw new Error(`module ${module.name} was not mounted`);
  const stop = async () => {
    await running.drain?.(AbortSignal.timeout(5_000));
    await relay.stop();
    await running.stop?.();
    if (options.bus === undefined) await bus.close();
    await mesh[Symbol.asyncDispose]();
  };
  try {
    await running.start?.(AbortSignal.timeout(30_000));
  } catch (error) {
    await stop();
    throw error;
  }
  if (options.relay ?? true) relay.start();
  const edge = mesh.links("edge");
  return { running, bus, metrics, logged, client: (service) => edge.to(service), [Symbol.asyncDispose]: stop };
}
