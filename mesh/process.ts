import type { ServerResponse } from "node:http";
import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import type { GatewayPortConfig, GatewayRunning } from "#gateway/index.ts";
import { newId } from "#platform/id.ts";
import { type ModuleTable, startOrder } from "#platform/module/graph.ts";
import { Lifecycle, type Part } from "#platform/module/lifecycle.ts";
import type { Component, Platform, Running } from "#platform/module/module.ts";
import type { OutboxRelay } from "#platform/postgres/outbox-relay.ts";
import { type HealthSource, mountHealth } from "#platform/rpc/health.ts";
import { createHopSigner, createHopVerifier } from "#platform/rpc/hop-token.ts";
import { createLinks, type Links } from "#platform/rpc/links.ts";
import { createLocalTransport } from "#platform/rpc/local-transport.ts";
import { type NodeListener, openPort, type Port } from "#platform/rpc/port.ts";
import { mountReflection } from "#platform/rpc/reflection.ts";
import { createRpcListener } from "#platform/rpc/rpc-listener.ts";
import { deriveServiceKeys } from "#platform/rpc/service-keys.ts";
import { type ServicePagesOptions, withServicePages } from "#platform/rpc/service-pages.ts";
import { createServicePipeline } from "#platform/rpc/service-pipeline.ts";
import { createPageTokens } from "#platform/secrets/page-token.ts";
import { loadRootSecret } from "#platform/secrets/root-secret.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import { rpcObservation } from "#platform/telemetry/rpc-observation.ts";
import { inject } from "#platform/telemetry/trace-context.ts";
import { openBackends } from "./backends.ts";
import { advertisedAddress, type MeshConfig } from "./config.ts";
import { SERVICE_PORT } from "./service-port.ts";

/** A running process of the mesh. */
export interface MeshProcess {
  /** Base URL of the port. */
  readonly address: string;
  readonly lifecycle: Lifecycle;
  /** Resolves when something broke that the process cannot live without. */
  readonly failure: Promise<Error>;
  /** Drains and stops everything; see Lifecycle. */
  stop(): Promise<void>;
}

/** Opens the backends, builds the modules of the configuration, starts them and serves them on one port. */
export async function startProcess(config: MeshConfig, table: ModuleTable, log: Log): Promise<MeshProcess> {
  await using undo = new AsyncDisposableStack();
  const names = startOrder(table, config.modules);
  // Taken first: a port in use must be known before a database is touched.
  const entrance = new Entrance();
  const port = undo.adopt(await listen(config, entrance), (open) => open.close(0));
  const address = advertisedAddress(config, port.port);
  const rootSecret = await loadRootSecret({
    secret: config.secret?.reveal(),
    previous: config.previousSecrets?.reveal(),
    dataDir: config.secret === undefined ? config.dataDir : undefined,
  });
  const modules = names.map((name) => rowOf(table, name).module);
  const backends = undo.use(await openBackends(config, modules, log));
  const metrics = createMetrics({ limits: config.telemetry.metrics.limits });
  const observation = rpcObservation(log, metrics);
  const keys = deriveServiceKeys(rootSecret, Object.keys(table));
  const parts: Part[] = [];
  const lifecycle = new Lifecycle(parts, log);
  const shutdown = new AbortController();
  const pipeline = createServicePipeline({
    verifier: createHopVerifier(names, keys),
    observation,
    shutdown: shutdown.signal,
  });
  const owners = serviceOwners(table);
  const local = localTransports(parts, pipeline);

  const components: Component[] = [...backends.components];
  const health: HealthSource = {
    ready: () => lifecycle.ready() && entrance.open,
    services: () => modules.flatMap(({ services }) => services.map(({ typeName }) => typeName)),
    onChange: (listener) => lifecycle.onChange(listener),
  };
  const shared: Omit<Platform, "links" | "log"> = {
    mode: config.embedded ? "embedded" : "distributed",
    instanceId: newId("ins"),
    ownAddress: address,
    dataDir: config.dataDir,
    metrics,
    rootSecret,
    pageTokens: createPageTokens(rootSecret),
    database: backends.database,
    bus: backends.bus,
    cache: backends.cache,
    limiter: backends.limiter,
    permits: backends.permits,
    components,
    health,
  };
  for (const name of names) {
    const links: Links = createLinks({
      caller: name,
      signer: createHopSigner(name, keys),
      moduleOf: (service) => owners.get(service.typeName) ?? name,
      local,
      address: (module) => config.links.get(module),
      ownAddress: address,
      injectTrace: inject,
    });
    undo.defer(() => links.close());
    const row = rowOf(table, name);
    const running = row.module.create(config.own.get(name), { ...shared, links, log: log.child({ module: name }) });
    components.push(...(running.components ?? []));
    parts.push({ name, running });
  }
  // Last to start and first to stop: an event that is published while its consumer is away is lost to an embedded bus.
  parts.push({ name: "outbox", running: outboxPart(backends.relay) });
  await lifecycle.start();
  entrance.admit(
    listenerOf(
      parts,
      modules.flatMap(({ services }) => [...services]),
      pipeline,
      health,
      { components, draining: () => lifecycle.state === "draining", metrics, log },
    ),
  );
  const owned = undo.move();
  return {
    address,
    lifecycle,
    failure: backends.failure,
    async stop() {
      const closing = lifecycle.stop(config.stop);
      await closing;
      shutdown.abort();
      await owned.disposeAsync();
    },
  };
}

/** What the port does before the modules have started, and after. */
class Entrance {
  #listener: NodeListener | undefined;

  get open(): boolean {
    return this.#listener !== undefined;
  }

  admit(listener: NodeListener): void {
    this.#listener = listener;
  }

  readonly listener: NodeListener = (request, response) => {
    if (this.#listener !== undefined) return this.#listener(request, response);
    const early = response as ServerResponse;
    early.writeHead(503, { "content-type": "text/plain", "retry-after": "1" }).end("starting\n");
  };
}

async function listen(config: MeshConfig, entrance: Entrance): Promise<Port> {
  const { host, port } = config.listen;
  try {
    const gateway = config.own.get("gateway") as GatewayPortConfig | undefined;
    const limits = gateway?.port ?? SERVICE_PORT;
    return await openPort({ host, port, listener: entrance.listener, limits });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new Error(`port ${port} is in use; set PORT to another one (0 takes a free one)`, { cause: error });
  }
}

/** How long a health report of a service's process counts, and a component may take to answer, in milliseconds. */
const SERVICE_HEALTH = { ttlMs: 1_000, probeMs: 2_000 };

/** The gateway's listener where there is a gateway; else all services behind the service pipeline, and the health pages. */
function listenerOf(
  parts: readonly Part[],
  services: readonly DescService[],
  pipeline: ReturnType<typeof createServicePipeline>,
  health: HealthSource,
  report: Pick<ServicePagesOptions, "components" | "draining" | "metrics"> & { readonly log: Log },
): NodeListener {
  const gateway = parts.map(({ running }) => running).find(hasListener);
  if (gateway !== undefined) return gateway.listener;
  const routes = (router: ConnectRouter) => {
    for (const { running } of parts) running.routes(router);
    mountHealth(router, health);
    mountReflection(router, services);
  };
  return withServicePages(createRpcListener(routes, pipeline, report.log), {
    ...report,
    ...SERVICE_HEALTH,
    ready: () => health.ready(),
  });
}

function outboxPart(relay: OutboxRelay): Running {
  return { routes: () => {}, start: async () => relay.start(), stop: () => relay.stop() };
}

function hasListener(running: Running): running is GatewayRunning {
  return "listener" in running;
}

/** Which module serves a proto service. */
function serviceOwners(table: ModuleTable): ReadonlyMap<string, string> {
  const owners = new Map<string, string>();
  for (const [name, { module }] of Object.entries(table)) {
    for (const { typeName } of module.services) owners.set(typeName, name);
  }
  return owners;
}

/** In-memory transports to the modules of this process, made when they are first called. */
function localTransports(parts: readonly Part[], pipeline: ReturnType<typeof createServicePipeline>) {
  const transports = new Map<string, ReturnType<typeof createLocalTransport>>();
  return (name: string) => {
    const part = parts.find((one) => one.name === name);
    if (part === undefined) return undefined;
    let transport = transports.get(name);
    if (transport === undefined) {
      transport = createLocalTransport((router) => part.running.routes(router), pipeline);
      transports.set(name, transport);
    }
    return transport;
  };
}

function rowOf(table: ModuleTable, name: string) {
  const row = table[name];
  if (row === undefined) throw new Error(`no module ${name}`);
  return row;
}
