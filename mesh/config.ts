import { isIP } from "node:net";
import { hostname } from "node:os";
import type { ConfigSource } from "#platform/config/source.ts";
import { type ModuleTable, remoteCalls, targetModules } from "#platform/module/graph.ts";
import { parseTargets } from "#platform/rpc/balance/targets.ts";
import { readTelemetryConfig, type TelemetryConfig } from "#platform/telemetry/config.ts";
import type { Secret } from "#platform/telemetry/secret.ts";

/** The configuration of one process. */
export interface MeshConfig {
  /** Modules that run here. */
  readonly modules: readonly string[];
  readonly embedded: boolean;
  readonly dataDir: string;
  readonly secret: Secret<string> | undefined;
  readonly previousSecrets: Secret<string> | undefined;
  readonly listen: { readonly host: string; readonly port: number };
  /** Base URL under which other processes reach this one. */
  readonly advertise: string | undefined;
  readonly postgres: {
    readonly url: Secret<string> | undefined;
    readonly ownerUrl: Secret<string> | undefined;
    readonly maxConnections: number;
  };
  readonly redisUrl: Secret<string> | undefined;
  readonly natsUrl: Secret<string> | undefined;
  readonly greet: "auto" | "always" | "never";
  readonly stop: { readonly delayMs: number; readonly graceMs: number };
  /** Address lists of modules in other processes. */
  readonly links: ReadonlyMap<string, string>;
  readonly telemetry: TelemetryConfig;
  /** Each module's own configuration, by name. */
  readonly own: ReadonlyMap<string, unknown>;
}

const POSTGRES = ["postgres:", "postgresql:"];

/** Reads the whole configuration of a process that runs modules of the table. */
export function readMeshConfig(source: ConfigSource, table: ModuleTable): MeshConfig {
  const mesh = source.section("mesh");
  const target = mesh.string("target", {
    default: "all",
    doc: "Modules that run in this process: `all`, one name, or several with commas between.",
  });
  const modules = known(mesh, table, target);
  const everything = modules.length === Object.keys(table).length;
  const postgres = source.section("postgres");
  const url = postgres.secret("url", {
    optional: true,
    protocols: POSTGRES,
    doc: "PostgreSQL ≥ 15 of the services; without one a private server under the data directory.",
  });
  const ownerUrl = postgres.secret("owner_url", {
    optional: true,
    protocols: POSTGRES,
    doc: "The same database for migrations, as a user who may create schemas and roles; default postgres.url.",
  });
  const redisUrl = source.section("redis").secret("url", {
    optional: true,
    protocols: ["redis:", "rediss:"],
    doc: "Redis ≥ 7; without one the cache is this process's own.",
  });
  const natsUrl = source.section("nats").secret("url", {
    optional: true,
    protocols: ["nats:", "tls:"],
    doc: "NATS ≥ 2.9 with JetStream; without one the bus is this process's own.",
  });
  const secret = mesh.secret("secret", {
    optional: true,
    doc: "Root secret: 32 bytes in base64. Without one it is made and kept in the data directory.",
  });
  if (!everything) {
    requireSet(postgres, "url", url);
    requireSet(source.section("redis"), "url", redisUrl);
    requireSet(source.section("nats"), "url", natsUrl);
    requireSet(mesh, "secret", secret);
  }
  return {
    modules,
    embedded: url === undefined,
    dataDir: mesh.string("data_dir", { default: ".agentmesh", doc: "Where this process keeps what it must not lose." }),
    secret,
    previousSecrets: mesh.secret("secret_previous", {
      optional: true,
      env: "AGENTMESH_SECRET_PREVIOUS",
      doc: "Earlier root secrets with commas between: what they protected can still be read.",
    }),
    ...readServer(source),
    postgres: {
      url,
      ownerUrl,
      maxConnections: postgres.int("max_connections", {
        default: 20,
        min: 2,
        max: 1_000,
        doc: "Most connections of this process.",
      }),
    },
    redisUrl,
    natsUrl,
    greet: mesh.choice("greet", ["auto", "always", "never", "1", "0"], {
      default: "auto",
      doc: "Whether the start shows a streamed answer: auto does while there is no session yet.",
    }) as MeshConfig["greet"],
    links: readLinks(source, table, modules),
    telemetry: readTelemetryConfig(source),
    own: readModules(source, table, modules),
  };
}

function readServer(source: ConfigSource): Pick<MeshConfig, "listen" | "advertise" | "stop"> {
  const server = source.section("server");
  const listen = server.string("listen", {
    default: "127.0.0.1",
    pattern: /(\[[0-9a-fA-F:]+\]|[^:\s]+)(:\d{1,5})?/,
    expected: "host or host:port",
    doc: "Address to listen on.",
  });
  const port = server.int("port", {
    default: 8080,
    min: 0,
    max: 65_535,
    doc: "Port to listen on; 0 takes a free one.",
  });
  return {
    listen: listenAddress(listen, port),
    advertise: server.url("advertise", {
      optional: true,
      doc: "Base URL under which other processes reach this one; default http://<host name or address>:<port>.",
    }),
    stop: {
      delayMs: server.duration("stop_delay", {
        default: "0s",
        max: "60s",
        doc: "Between `not ready` and the end of accepting, so that load balancers notice.",
      }),
      graceMs: server.duration("stop_grace", { default: "25s", max: "30m", doc: "For calls and runs in flight." }),
    },
  };
}

function listenAddress(text: string, port: number): { host: string; port: number } {
  const [, host = text, own] = /^(.*?)(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (isIP(text) === 6) return { host: text, port };
  return { host: host.replace(/^\[|\]$/g, ""), port: own === undefined ? port : Number(own) };
}

function readLinks(source: ConfigSource, table: ModuleTable, modules: readonly string[]): Map<string, string> {
  const links = new Map<string, string>();
  const section = source.section("links");
  const needed = remoteCalls(table, modules);
  for (const name of Object.keys(table)) {
    const addresses = section.string(name, {
      optional: true,
      expected: "base URLs with commas between",
      doc: `Where ${name} is when it runs in other processes: \`http://host:port\`, several with commas between; every address of a host name is a replica.`,
    });
    if (addresses !== undefined) links.set(name, checkedAddresses(section, name, addresses));
    else if (needed.includes(name)) section.problem(name, `required: this process calls ${name} and does not run it`);
  }
  return links;
}

function checkedAddresses(section: ConfigSource, name: string, addresses: string): string {
  try {
    parseTargets(addresses);
  } catch (error) {
    section.problem(name, error instanceof Error ? error.message : String(error));
  }
  return addresses;
}

function readModules(source: ConfigSource, table: ModuleTable, modules: readonly string[]): Map<string, unknown> {
  const own = new Map<string, unknown>();
  for (const name of modules) own.set(name, table[name]?.module.config(source));
  return own;
}

function known(mesh: ConfigSource, table: ModuleTable, target: string): string[] {
  try {
    return targetModules(table, target);
  } catch (error) {
    mesh.problem("target", error instanceof Error ? error.message : String(error));
    return Object.keys(table);
  }
}

function requireSet(section: ConfigSource, key: string, value: unknown): void {
  if (value === undefined) section.problem(key, "required when mesh.target is not `all`");
}

/** The address under which others reach a process that listens on `host`. */
export function advertisedAddress(config: MeshConfig, port: number): string {
  if (config.advertise !== undefined) return config.advertise;
  const { host } = config.listen;
  const reachable = host === "0.0.0.0" || host === "::" ? hostname() : host;
  return `http://${isIP(reachable) === 6 ? `[${reachable}]` : reachable}:${port}`;
}
