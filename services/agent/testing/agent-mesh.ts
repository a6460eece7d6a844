import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import type { Client, ConnectRouter } from "@connectrpc/connect";
import { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import type { Bus, BusMessage, ConsumeOptions, Subscription } from "#platform/bus/bus.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { loadConfig } from "#platform/config/load.ts";
import { newId } from "#platform/id.ts";
import type { Platform } from "#platform/module/module.ts";
import type { Database } from "#platform/postgres/database.ts";
import { createOutboxRelay } from "#platform/postgres/outbox-relay.ts";
import { EmbeddedCache } from "#platform/redis/embedded-cache.ts";
import { EmbeddedLimiter } from "#platform/redis/embedded-limiter.ts";
import { EmbeddedPermits } from "#platform/redis/embedded-permits.ts";
import { dependencyDown } from "#platform/rpc/errors.ts";
import { createHopSigner, createHopVerifier } from "#platform/rpc/hop-token.ts";
import { createLinks } from "#platform/rpc/links.ts";
import { createLocalTransport } from "#platform/rpc/local-transport.ts";
import { openPort, type Port } from "#platform/rpc/port.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { deriveServiceKeys } from "#platform/rpc/service-keys.ts";
import { createServicePipeline } from "#platform/rpc/service-pipeline.ts";
import { adapt, RecordedCalls, until } from "#platform/rpc/test-mesh.contract.ts";
import { createPageTokens } from "#platform/secrets/page-token.ts";
import { rootSecret } from "#platform/secrets/root-secret.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { createMetrics, type Metrics } from "#platform/telemetry/metrics.ts";
import { createFaultProxy } from "#platform/testing/fault-proxy.ts";
import { type ModelServer, startModelServer } from "#platform/testing/model-server/server.ts";
import { type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentService, assembleAgent } from "../assemble.ts";
import { readAgentConfig } from "../config.ts";
import { localNeighbours, type Neighbours, playNeighbours } from "./neighbours.ts";

/** Times that a test can wait for. */
const SHORT_TIMES = {
  reaper_interval: "100ms",
  stream_heartbeat: "5s",
  answers_ttl: "0s",
  queue: { sweep_interval: "100ms", orphan_after: "1s" },
};

/** Long enough for a busy machine; where there is nobody to take a run up there is nothing to wait for. */
const LEASES = { alone: { lease: "20s", heartbeat: "1s" }, shared: { lease: "1500ms", heartbeat: "300ms" } };

/** A database with the agent service's tables. */
export function agentDatabase(): Promise<TestDatabase> {
  const dir = fileURLToPath(new URL("../store/migrations/", import.meta.url));
  return testDatabase({ services: [{ schema: "agent", dir }] });
}

export interface MeshOptions {
  readonly replicas?: number;
  /** Settings of the agent section, of all replicas; short times by default. */
  readonly agent?: Record<string, unknown>;
  /** Settings of the section `models`, beside address and key of the scripted server. */
  readonly models?: Record<string, unknown>;
  /** Plugins to load. */
  readonly plugins?: readonly string[];
  /** And of each one. */
  readonly agents?: readonly Record<string, unknown>[];
  /** A bus for each replica; default one embedded for all. */
  readonly bus?: () => Bus;
  /** A cache in place of one of its own. */
  readonly cache?: EmbeddedCache;
  /** A database in place of one of its own, for instance behind a proxy. */
  readonly database?: Database;
}

/** One replica of the agent service, called over gRPC through its own port. */
export interface Replica {
  readonly service: AgentService;
  readonly instanceId: string;
  readonly address: string;
  readonly metrics: Metrics;
  readonly logged: readonly Readonly<Record<string, unknown>>[];
  readonly chat: Client<typeof ChatService>;
  readonly runs: Client<typeof RunService>;
  readonly approvals: Client<typeof ApprovalService>;
  readonly sessions: Client<typeof SessionService>;
  readonly tail: Client<typeof RunTailService>;
  /** Listeners that it has on the bus now. */
  listeners(): number;
  /** Calls that other replicas made to its tail service. */
  tailed(): number;
  /** Only its database cannot be reached, until {@link wake}. */
  loseDatabase(): void;
  /** As kill -9: its connections break, and nothing that it does reaches database or bus any more. */
  kill(): void;
  /** As SIGSTOP: the same, but its connections stay open and silent. */
  freeze(): void;
  /** As SIGCONT, after either: database, bus and connections are there again. */
  wake(): void;
}

/** Replicas of the agent service over one database, with a scripted model and played neighbours. */
export interface AgentMesh extends AsyncDisposable {
  readonly test: TestDatabase;
  readonly db: Database;
  readonly model: ModelServer;
  readonly neighbours: Neighbours;
  /** The embedded bus, where that is what the replicas have. */
  readonly bus: Bus;
  readonly replicas: readonly Replica[];
  /** The first replica. */
  readonly one: Replica;
  /** The second one. */
  readonly two: Replica;
  /** Resolves when nothing is left behind by readers: places at feeds, tails, listeners. */
  settled(): Promise<void>;
}

export async function openAgentMesh(options: MeshOptions = {}): Promise<AgentMesh> {
  await using undo = new AsyncDisposableStack();
  const test = undo.use(await agentDatabase());
  const model = undo.use(await startModelServer());
  const embedded = undo.use(new EmbeddedBus({ log: createLog({ level: "silent", service: "bus" }) }));
  const cache = undo.use(options.cache ?? new EmbeddedCache());
  const permits = undo.use(new EmbeddedPermits());
  const root = rootSecret([randomBytes(32)]);
  const keys = deriveServiceKeys(root, ["edge", "agent", "config", "tool"]);
  const neighbours = playNeighbours();
  const local = localNeighbours(neighbours, keys);
  const relay = undo.use(
    createOutboxRelay({
      db: options.database ?? test.db,
      schemas: ["agent"],
      bus: options.bus === undefined ? embedded : undo.use(options.bus()),
      log: createLog({ level: "silent", service: "outbox" }),
      pollMs: 50,
    }),
  );
  const replicas: Replica[] = [];
  for (let i = 0; i < (options.replicas ?? 1); i++) {
    const bus = options.bus === undefined ? embedded : undo.use(options.bus());
    const leases = (options.replicas ?? 1) > 1 ? LEASES.shared : LEASES.alone;
    const agent = { ...SHORT_TIMES, ...leases, ...options.agent, ...options.agents?.[i] };
    replicas.push(await openReplica({ undo, options, agent, test, model, root, keys, local, bus, cache, permits }));
  }
  relay.start();
  const owned = undo.move();
  const [one, two] = replicas as [Replica, Replica];
  const idle = ({ service: { liveRuns, remoteTails }, listeners }: Replica) =>
    remoteTails.size === 0 && listeners() === 0 && liveRuns.all().every(({ log }) => log.feed.subscribers === 0);
  return {
    test,
    db: options.database ?? test.db,
    model,
    neighbours,
    bus: embedded,
    replicas,
    one,
    two,
    settled: () => until(() => replicas.every(idle), "readers to leave nothing behind"),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/**
 * Has every replica answer once, which compiles what answers: on a busy machine that takes longer than a lease of these
 * tests, and the first test would lose its owner for that alone.
 */
export async function warmUp({ replicas, model }: AgentMesh): Promise<void> {
  for (const { chat } of replicas) {
    await chat.chat({ message: "hello" }, callAs(principalOf(newId("ten"), TENANT_SCOPES)));
  }
  model.reset();
}

type Keys = ReturnType<typeof deriveServiceKeys>;

interface ReplicaParts {
  undo: AsyncDisposableStack;
  options: MeshOptions;
  agent: Record<string, unknown>;
  test: TestDatabase;
  model: ModelServer;
  root: ReturnType<typeof rootSecret>;
  keys: Keys;
  local: (module: string) => ReturnType<typeof createLocalTransport> | undefined;
  bus: Bus;
  cache: EmbeddedCache;
  permits: EmbeddedPermits;
}

async function openReplica(parts: ReplicaParts): Promise<Replica> {
  const { undo, options, agent, test, model, root, keys, local, bus, cache, permits } = parts;
  const logged: Record<string, unknown>[] = [];
  const log = createLog({
    level: "debug",
    service: "agent",
    destination: { write: (line) => void logged.push(JSON.parse(line)) },
  });
  const metrics = createMetrics({ process: false });
  const calls = new RecordedCalls();
  const pipeline = createServicePipeline({ verifier: createHopVerifier(["agent"], keys), observation: calls });
  const state = { frozen: false, databaseAway: false };
  const heard = countListeners(bus, state);
  const door: { routes?: (router: ConnectRouter) => void } = {};
  const listener = adapt((router) => door.routes?.(router), pipeline);
  const entrance: { serve: typeof listener } = { serve: (_, response) => void response.destroy() };
  const port: Port = await openPort({ host: "127.0.0.1", port: 0, listener: (...both) => entrance.serve(...both) });
  undo.defer(() => port.close(100));
  const way = undo.use(await createFaultProxy({ port: port.port }));
  const address = `http://127.0.0.1:${way.port}`;
  const links = createLinks({
    caller: "agent",
    signer: createHopSigner("agent", keys),
    moduleOf: (service) => moduleOf(service.typeName),
    local: (module) => (module === "agent" ? own : local(module)),
    address: () => undefined,
    ownAddress: address,
    injectTrace: () => {},
  });
  undo.defer(() => links.close());
  const values = {
    agent,
    models: {
      anthropic: { api_key: "test-key", base_url: model.url },
      openai: { api_key: "test-key", base_url: `${model.url}/v1` },
      ...options.models,
    },
    plugins: { modules: options.plugins ?? [] },
  };
  const database = freezable(options.database ?? test.open(), state);
  const platform: Platform = {
    mode: "distributed",
    instanceId: newId("ins"),
    ownAddress: address,
    dataDir: "/nonexistent",
    log,
    metrics,
    database,
    bus: heard.bus,
    cache,
    limiter: new EmbeddedLimiter(),
    permits,
    links,
    rootSecret: root,
    pageTokens: createPageTokens(root),
    components: [],
    health: { ready: () => true, services: () => [], onChange: () => () => {} },
  };
  const service = assembleAgent(loadConfig(readAgentConfig, { env: {}, dir: false, values }), platform);
  door.routes = service.routes;
  const own = createLocalTransport(service.routes, pipeline);
  entrance.serve = adapt(service.routes, pipeline);
  await service.start?.(new AbortController().signal);
  undo.defer(async () => {
    state.frozen = false;
    state.databaseAway = false;
    way.heal();
    await service.stop?.();
  });
  const edge = createLinks({
    caller: "edge",
    signer: createHopSigner("edge", keys),
    moduleOf: () => "agent",
    local: () => undefined,
    address: () => address,
    ownAddress: "http://edge.invalid",
    injectTrace: () => {},
  });
  undo.defer(() => edge.close());
  return {
    service,
    instanceId: platform.instanceId,
    address,
    metrics,
    logged,
    chat: edge.to(ChatService),
    runs: edge.to(RunService),
    approvals: edge.to(ApprovalService),
    sessions: edge.to(SessionService),
    tail: edge.to(RunTailService),
    listeners: heard.count,
    tailed: () => calls.ended.filter(({ method }) => method === "TailRun").length,
    loseDatabase() {
      state.databaseAway = true;
    },
    kill() {
      state.frozen = true;
      heard.leave();
      way.refuse();
      way.reset();
    },
    freeze() {
      state.frozen = true;
      heard.leave();
      way.blackHole();
    },
    wake() {
      state.frozen = false;
      state.databaseAway = false;
      heard.join();
      way.heal();
    },
  };
}

function moduleOf(typeName: string): string {
  return /^agentmesh\.(agent|config|tool)\./.exec(typeName)?.[1] ?? "nobody";
}

/** A database that cannot be reached while its process is frozen. */
function freezable(database: Database, state: { frozen: boolean; databaseAway: boolean }): Database {
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    if (state.frozen || state.databaseAway) throw dependencyDown("postgres");
    return work();
  };
  return {
    ...database,
    tenant: (tenantId, fn, options) => guarded(() => database.tenant(tenantId, fn, options)),
    worker: (fn, options) => guarded(() => database.worker(fn, options)),
  };
}

function countListeners(bus: Bus, state: { frozen: boolean }) {
  let count = 0;
  const consumers = new Map<ConsumeOptions, Subscription | undefined>();
  const consume = async (options: ConsumeOptions) => {
    consumers.set(options, await bus.consume(options));
  };
  const counted: Bus = {
    async publish(message, signal) {
      if (state.frozen) throw dependencyDown("event bus");
      await bus.publish(message, signal);
    },
    async consume(options) {
      await consume(options);
      const unsubscribe = async () => {
        await consumers.get(options)?.unsubscribe();
        consumers.delete(options);
      };
      return { unsubscribe, [Symbol.asyncDispose]: unsubscribe };
    },
    notify(subject, data) {
      if (!state.frozen) bus.notify(subject, data);
    },
    async listen(subject: string, onMessage: (message: BusMessage) => void) {
      const inner = await bus.listen(subject, onMessage);
      // Those of readers, not those that a service has for all its life.
      const ofReader = subject.startsWith("agentmesh.run.") ? 1 : 0;
      count += ofReader;
      const unsubscribe = async () => {
        count -= ofReader;
        await inner.unsubscribe();
      };
      return { unsubscribe, [Symbol.asyncDispose]: unsubscribe };
    },
    ping: (signal) => bus.ping(signal),
    close: () => bus.close(),
    [Symbol.asyncDispose]: () => bus.close(),
  };
  /** As a bus takes it whose consumer has gone, and come back. */
  const leave = () => {
    for (const [options, subscription] of consumers) {
      void subscription?.unsubscribe();
      consumers.set(options, undefined);
    }
  };
  const join = () => {
    for (const [options, subscription] of consumers) if (subscription === undefined) void consume(options);
  };
  return { bus: counted, count: () => count, leave, join };
}
