import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, type ConnectRouter } from "@connectrpc/connect";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import type { AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { type ExecuteToolRequest, ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import type { Bus, BusMessage } from "#platform/bus/bus.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { loadConfig } from "#platform/config/load.ts";
import { newId } from "#platform/id.ts";
import type { Platform } from "#platform/module/module.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { EmbeddedLimiter } from "#platform/redis/embedded-limiter.ts";
import { callOf } from "#platform/rpc/call.ts";
import { AppError, dependencyDown, notFound } from "#platform/rpc/errors.ts";
import { createHopSigner, createHopVerifier } from "#platform/rpc/hop-token.ts";
import { createLinks, createLocalTransport } from "#platform/rpc/links.ts";
import { openPort, type Port } from "#platform/rpc/port.ts";
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
import { type AgentService, assembleAgent } from "../assemble.ts";
import { readAgentConfig } from "../config.ts";

/** Times that a test can wait for. */
const SHORT_TIMES = { lease: "600ms", heartbeat: "200ms", reaper_interval: "100ms", stream_heartbeat: "5s" };

/** A database with the agent service's tables. */
export function agentDatabase(): Promise<TestDatabase> {
  const dir = fileURLToPath(new URL("../store/migrations/", import.meta.url));
  return testDatabase({ services: [{ schema: "agent", dir }] });
}

/** What the config and tool services answer here. They are services of others, played. */
export interface Neighbours {
  /** The agent of whoever asks, but for its id. */
  agent: Omit<MessageInitShape<typeof AgentSchema>, "$typeName">;
  /** Ids of agents that exist beside the default one. */
  agentIds: Set<string>;
  maxMessageCharacters: bigint;
  /** What a call of a tool does. Default: answers with its arguments. */
  executeTool(request: ExecuteToolRequest, signal: AbortSignal): Promise<string>;
  /** True: the tool service cannot be reached. */
  toolsDown: boolean;
  /** Calls that were executed, by their idempotency key. */
  readonly executed: string[];
}

export interface MeshOptions {
  readonly replicas?: number;
  /** Settings of the agent section, of all replicas; short times by default. */
  readonly agent?: Record<string, unknown>;
  /** And of each one. */
  readonly agents?: readonly Record<string, unknown>[];
  /** A bus for each replica; default one embedded for all. */
  readonly bus?: () => Bus;
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
  const root = rootSecret([randomBytes(32)]);
  const keys = deriveServiceKeys(root, ["edge", "agent", "config", "tool"]);
  const neighbours = playNeighbours();
  const local = localNeighbours(neighbours, keys);
  const replicas: Replica[] = [];
  for (let i = 0; i < (options.replicas ?? 1); i++) {
    const bus = options.bus === undefined ? embedded : undo.use(options.bus());
    const agent = { ...SHORT_TIMES, ...options.agent, ...options.agents?.[i] };
    replicas.push(await openReplica({ undo, options, agent, test, model, root, keys, local, bus }));
  }
  const owned = undo.move();
  const [one, two] = replicas as [Replica, Replica];
  const idle = ({ service: { liveRuns, remoteTails }, listeners }: Replica) =>
    remoteTails.size === 0 && listeners() === 0 && liveRuns.all().every(({ log }) => log.feed.subscribers === 0);
  return {
    test,
    db: options.database ?? test.db,
    model,
    neighbours,
    replicas,
    one,
    two,
    settled: () => until(() => replicas.every(idle), "readers to leave nothing behind"),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
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
}

async function openReplica(parts: ReplicaParts): Promise<Replica> {
  const { undo, options, agent, test, model, root, keys, local, bus } = parts;
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
    models: { anthropic: { api_key: "test-key", base_url: model.url } },
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
    cache: undefined as unknown as Cache,
    limiter: new EmbeddedLimiter(),
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
    sessions: edge.to(SessionService),
    tail: edge.to(RunTailService),
    listeners: heard.count,
    tailed: () => calls.ended.filter(({ method }) => method === "TailRun").length,
    loseDatabase() {
      state.databaseAway = true;
    },
    kill() {
      state.frozen = true;
      way.refuse();
      way.reset();
    },
    freeze() {
      state.frozen = true;
      way.blackHole();
    },
    wake() {
      state.frozen = false;
      state.databaseAway = false;
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
  const counted: Bus = {
    publish: (message, signal) => bus.publish(message, signal),
    consume: (options) => bus.consume(options),
    notify(subject, data) {
      if (!state.frozen) bus.notify(subject, data);
    },
    async listen(subject: string, onMessage: (message: BusMessage) => void) {
      const inner = await bus.listen(subject, onMessage);
      count++;
      const unsubscribe = async () => {
        count--;
        await inner.unsubscribe();
      };
      return { unsubscribe, [Symbol.asyncDispose]: unsubscribe };
    },
    ping: (signal) => bus.ping(signal),
    close: () => bus.close(),
    [Symbol.asyncDispose]: () => bus.close(),
  };
  return { bus: counted, count: () => count };
}

function playNeighbours(): Neighbours {
  return {
    agent: { llmModel: "claude-haiku-5-5", tools: ["echo"], maxTokens: 1000, version: 3 },
    agentIds: new Set(),
    maxMessageCharacters: 100_000n,
    executeTool: async ({ argumentsJson }) => argumentsJson,
    toolsDown: false,
    executed: [],
  };
}

function localNeighbours(played: Neighbours, keys: Keys) {
  const routes: Record<string, (router: ConnectRouter) => void> = {
    config: (router) =>
      router.service(ResolutionService, {
        resolveAgent({ agentId }) {
          if (agentId !== "" && agentId !== "agt_default" && !played.agentIds.has(agentId)) throw notFound("agent");
          const agent = { ...played.agent, agentId: agentId || "agt_default" };
          return { agent, limits: { maxMessageCharacters: played.maxMessageCharacters } };
        },
      }),
    tool: (router) =>
      router.service(ToolExecutionService, {
        describeTools({ names }) {
          if (played.toolsDown) throw toolsAway();
          const schema = (name: string) => (name === "bad schema" ? "{" : "{}");
          const described = (name: string) => ({
            name,
            description: name,
            inputSchemaJson: schema(name),
            timeoutMs: 5_000,
          });
          return { tools: names.map(described) };
        },
        async *executeTool(request, context) {
          if (played.toolsDown) throw toolsAway();
          played.executed.push(request.requestId);
          yield { frame: { case: "progress", value: { message: "working", fraction: 0.5 } } };
          const text = await played.executeTool(request, callOf(context).signal);
          const content = [{ part: { case: "text" as const, value: { text } } }];
          yield { frame: { case: "result", value: { content, structuredJson: "", isError: false, durationMs: 1n } } };
        },
      }),
  };
  const transports = new Map(
    Object.entries(routes).map(([module, mount]) => {
      const verifier = createHopVerifier([module], keys);
      return [
        module,
        createLocalTransport(mount, createServicePipeline({ verifier, observation: new RecordedCalls() })),
      ];
    }),
  );
  return (module: string) => transports.get(module);
}

function toolsAway(): AppError {
  return new AppError({ code: Code.Unavailable, reason: "DEPENDENCY_DOWN", message: "tool cannot be reached." });
}
