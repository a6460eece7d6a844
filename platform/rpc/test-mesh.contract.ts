import { randomBytes } from "node:crypto";
import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter, ConnectRouterOptions } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { newId } from "../id.ts";
import { rootSecret } from "../secrets/root-secret.ts";
import type { Call } from "./call.ts";
import { createHopSigner, createHopVerifier, type HopSigner } from "./hop-token.ts";
import { createLinks, type Links } from "./links.ts";
import { createLocalTransport } from "./local-transport.ts";
import type { CallOutcome, Observation } from "./observe.ts";
import { openPort, type Port } from "./port.ts";
import type { Principal } from "./principal.ts";
import { deriveServiceKeys, type ServiceKeys } from "./service-keys.ts";
import { createServicePipeline } from "./service-pipeline.ts";

/** The two ways between services; what is asserted of one is asserted of the other. */
export const CARRIERS = ["memory", "grpc"] as const;

export type Carrier = (typeof CARRIERS)[number];

export interface EndedCall extends CallOutcome {
  service: string;
  method: string;
}

/** Keeps what the pipelines of a mesh report. */
export class RecordedCalls implements Observation {
  begun = 0;
  readonly ended: EndedCall[] = [];

  begin({ service, method }: { service: string; method: string }) {
    this.begun += 1;
    return {
      run: <T>(fn: () => T) => fn(),
      end: (outcome: CallOutcome) => void this.ended.push({ service, method, ...outcome }),
    };
  }

  /** The one end of a method's one call, once it has come. */
  async endOf(method: string): Promise<EndedCall> {
    await until(() => this.ended.some((call) => call.method === method), `the end of ${method}`);
    const ends = this.ended.filter((call) => call.method === method);
    if (ends.length !== 1) throw new Error(`${method} ended ${ends.length} times`);
    return ends[0] as EndedCall;
  }
}

export interface TestModule {
  services: readonly DescService[];
  routes(router: ConnectRouter, links: Links): void;
}

/** Modules with service pipelines, and links between them: in one process, or each on a port of its own. */
export interface TestMesh extends AsyncDisposable {
  readonly calls: RecordedCalls;
  readonly keys: ServiceKeys;
  links(caller: string): Links;
  signer(caller: string): HopSigner;
  /** Base URL of a module; with carrier "grpc" only. */
  address(module: string): string;
  /** Closes a module's port at once, as when its process dies; with carrier "grpc" only. */
  stop(module: string): Promise<void>;
}

export async function openTestMesh(
  carrier: Carrier,
  modules: Readonly<Record<string, TestModule>>,
  options: { addresses?: Readonly<Record<string, string>> } = {},
): Promise<TestMesh> {
  const names = [...Object.keys(modules), ...Object.keys(options.addresses ?? {})];
  const keys = deriveServiceKeys(rootSecret([randomBytes(32)]), ["edge", ...names]);
  const calls = new RecordedCalls();
  const ports = new Map<string, Port>();
  const opened: Links[] = [];
  const signers = new Map<string, HopSigner>();
  const signer = (caller: string) => {
    const known = signers.get(caller) ?? createHopSigner(caller, keys);
    signers.set(caller, known);
    return known;
  };
  const doorOf = (module: string): ConnectRouterOptions =>
    createServicePipeline({ verifier: createHopVerifier([module], keys), observation: calls });
  const address = (module: string) => {
    const port = ports.get(module);
    return port === undefined ? options.addresses?.[module] : `http://127.0.0.1:${port.port}`;
  };
  const local = new Map<string, ReturnType<typeof createLocalTransport>>();
  const links = (caller: string) => {
    const made = createLinks({
      caller,
      signer: signer(caller),
      moduleOf: (service) =>
        names.find((name) => modules[name]?.services.includes(service)) ??
        Object.keys(options.addresses ?? {})[0] ??
        "nobody",
      local: (module) => local.get(module),
      address,
      ownAddress: "http://this-process.invalid",
      injectTrace: () => {},
    });
    opened.push(made);
    return made;
  };
  for (const [name, module] of Object.entries(modules)) {
    const own = links(name);
    const routes = (router: ConnectRouter) => module.routes(router, own);
    if (carrier === "memory") local.set(name, createLocalTransport(routes, doorOf(name)));
    else ports.set(name, await openPort({ host: "127.0.0.1", port: 0, listener: adapt(routes, doorOf(name)) }));
  }
  return {
    calls,
    keys,
    links,
    signer,
    address: (module) => address(module) ?? `no address of ${module}`,
    stop: async (module) => ports.get(module)?.close(0),
    async [Symbol.asyncDispose]() {
      await Promise.all(opened.map((link) => link.close()));
      await Promise.all([...ports.values()].map((port) => port.close(100)));
    },
  };
}

/** The listener that a process mounts on its port. */
export function adapt(routes: (router: ConnectRouter) => void, pipeline: ConnectRouterOptions) {
  return connectNodeAdapter({ routes, ...pipeline });
}

export function testPrincipal(scopes: readonly string[], more: Partial<Principal> = {}): Principal {
  return { tenantId: newId("ten"), subject: newId("key"), scopes, credentialId: newId("key"), actors: [], ...more };
}

/** A call that the edge serves for a principal with these scopes. */
export function testCall(scopes: readonly string[], more: Partial<Call> = {}): Call {
  return {
    principal: testPrincipal(scopes),
    signal: new AbortController().signal,
    requestId: newId("req"),
    ip: "203.0.113.9",
    userAgent: "test/1",
    ...more,
  };
}

/** Resolves when `condition` holds; rejects after five seconds. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** What `promise` rejects with. */
export async function rejection(promise: PromiseLike<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}
