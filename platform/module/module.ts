import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import type { Bus } from "../bus/bus.ts";
import type { ConfigSource } from "../config/source.ts";
import type { Database } from "../postgres/database.ts";
import type { Cache } from "../redis/cache.ts";
import type { Limiter } from "../redis/limiter.ts";
import type { Permits } from "../redis/permits.ts";
import type { HealthSource } from "../rpc/health.ts";
import type { Links } from "../rpc/links.ts";
import type { PageTokens } from "../secrets/page-token.ts";
import type { RootSecret } from "../secrets/root-secret.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";

/** What a process gives to the modules that run in it. A module takes what it needs and passes on no more. */
export interface Platform {
  /** "embedded" when every backend is this process's own. */
  readonly mode: "embedded" | "distributed";
  /** Unique per process start; lease owner and log field. */
  readonly instanceId: string;
  /** Base URL under which other processes reach this one's services. */
  readonly ownAddress: string;
  /** Where this process keeps what it must not lose. */
  readonly dataDir: string;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  readonly bus: Bus;
  readonly cache: Cache;
  readonly limiter: Limiter;
  readonly permits: Permits;
  readonly links: Links;
  readonly rootSecret: RootSecret;
  readonly pageTokens: PageTokens;
  /** What the health report asks: the backends, and what the modules of this process add as they are built. */
  readonly components: readonly Component[];
  /** Readiness of this process. */
  readonly health: HealthSource;
}

/** A backend that the health report asks. */
export interface Component {
  /** "postgres", "redis", "nats", "qdrant" or "model". */
  readonly name: string;
  /** False: without it the mesh still answers, perhaps with less. */
  readonly required: boolean;
  /** "embedded" when it is this process's own. */
  readonly kind: "embedded" | "external";
  /** Resolves when it answers. */
  ping(signal: AbortSignal): Promise<void>;
  /** True: it answers, with less than it should. */
  degraded?(): boolean;
}

/** A part of the system that can run alone or with others in one process. Every service's index.ts exports one. */
export interface Module<Config> {
  readonly name: string;
  /** Proto services that it serves. */
  readonly services: readonly DescService[];
  /** Postgres schema that it owns and the folder of its migrations; undefined for a module without tables. */
  readonly schema?: { readonly name: string; readonly migrations: URL } | undefined;
  /** Reads and validates its configuration; runs before anything opens. */
  config(source: ConfigSource): Config;
  /** Builds the module. Nothing runs yet and nobody is called. */
  create(config: Config, platform: Platform): Running;
}

/** A built module. Every member but `routes` is optional. */
export interface Running {
  /** Registers its services. */
  routes(router: ConnectRouter): void;
  /** Begins work: consumers, timers, bootstrap. Modules that it calls have started before. */
  start?(signal: AbortSignal): Promise<void>;
  /** What it depends on beside the backends of the process, for the health report. */
  readonly components?: readonly Component[];
  /** False while it cannot do its work; part of the process's readiness. */
  ready?(): boolean;
  /** Finishes or hands over work in flight; no new calls arrive. Returns when done or when the signal aborts. */
  drain?(signal: AbortSignal): Promise<void>;
  /** Releases everything. */
  stop?(): Promise<void>;
}
