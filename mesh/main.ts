import { ConfigError } from "#platform/config/config-error.ts";
import { loadConfig } from "#platform/config/load.ts";
import type { ConfigSource } from "#platform/config/source.ts";
import { watchConfig } from "#platform/config/watch.ts";
import { createLog, type Log } from "#platform/telemetry/log.ts";
import { startTracing } from "#platform/telemetry/tracing.ts";
import { type MeshConfig, readMeshConfig } from "./config.ts";
import { welcome } from "./greeting.ts";
import { MODULES } from "./modules.ts";
import { type MeshProcess, startProcess } from "./process.ts";
import { requireNode24 } from "./runtime.ts";

const SIGNALS = ["SIGTERM", "SIGINT"] as const;
/** A signal this long after the first does not wait for the drain. Sooner it is the same wish: npm hands Ctrl-C on again. */
const SAME_WISH_MS = 1_000;

async function main(): Promise<number> {
  requireNode24();
  const config = readConfig();
  if (config === undefined) return 2;
  const log = createLog({ ...config.telemetry.log, service: "agentmesh" });
  const tracing = startTracing({ service: "agentmesh", ...config.telemetry.trace, log });
  process.on("unhandledRejection", (error) => log.error({ err: error }, "unhandled rejection"));
  const stopping = stopSignal(log);
  let mesh: MeshProcess;
  try {
    mesh = await startProcess(config, MODULES, log);
  } catch (error) {
    log.fatal({ err: error }, "the process could not start");
    return 1;
  }
  using _following = followLogLevel(log);
  log.info({ address: mesh.address, target: config.modules.join(",") }, "ready");
  await welcome(config, mesh, stopping.signal);
  const failure = await Promise.race([mesh.failure, stopping.asked]);
  if (failure !== undefined) log.fatal({ err: failure }, "a backend of this process is gone");
  await mesh.stop();
  await tracing.shutdown(config.telemetry.trace.flushTimeoutMs);
  log.info("stopped");
  return failure === undefined ? 0 : 1;
}

/** The log's level follows the configuration's files; everything else takes a restart. */
function followLogLevel(log: Log): Disposable {
  const watched = watchConfig(read, { declare: declareAll, log });
  watched.subscribe(({ telemetry }) => log.setLevel(telemetry.log.level));
  return watched;
}

const read = (source: ConfigSource) => readMeshConfig(source, MODULES);

function readConfig(): MeshConfig | undefined {
  try {
    return loadConfig(read, { declare: declareAll });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(error.message);
    return undefined;
  }
}

/** Keys of modules that run in other processes may stand in the same files. */
function declareAll(source: ConfigSource): void {
  for (const { module } of Object.values(MODULES)) module.config(source);
}

function stopSignal(log: Log): { signal: AbortSignal; asked: Promise<undefined> } {
  const controller = new AbortController();
  const { promise: asked, resolve } = Promise.withResolvers<undefined>();
  let firstAt = Number.POSITIVE_INFINITY;
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (performance.now() - firstAt > SAME_WISH_MS) process.exit(1);
      if (controller.signal.aborted) return;
      firstAt = performance.now();
      log.info({ signal: name }, "stopping");
      controller.abort();
      resolve(undefined);
    });
  }
  if (process.env["npm_lifecycle_event"] !== undefined) onParentGone(() => process.emit("SIGTERM"));
  return { signal: controller.signal, asked };
}

/** Under npm this process is npm's: killed with -9, npm could not hand that on, and would leave a server that nobody sees. */
function onParentGone(callback: () => void): void {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    callback();
  }, 500);
  timer.unref();
}

process.exitCode = await main();
// Whatever a library has left open must not keep a process that has stopped.
setTimeout(() => process.exit(), 2_000).unref();
