import type { Database } from "#platform/postgres/database.ts";
import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { AgentConfig } from "../config.ts";
import { Eraser, SESSION_DELETED } from "./eraser.ts";
import { Expiry } from "./expiry.ts";
import { Rounds } from "./rounds.ts";

export interface CleanUpDeps {
  database: Database;
  log: Log;
  metrics: Metrics;
  /** Removes what is kept of a session outside of the database. */
  forgetContext(tenantId: string, sessionId: string): Promise<void>;
}

/** The jobs that remove what need not, or must not, be kept. */
export interface CleanUp {
  start(): void;
  /** Resolves when the rounds under way have ended. */
  stop(): Promise<void>;
}

export function openCleanUp(config: AgentConfig, deps: CleanUpDeps): CleanUp {
  const erasing = eraserRounds(config, deps);
  const expiring = expiryRounds(config, deps);
  let stopListening: (() => void) | undefined;
  return {
    start() {
      stopListening = deps.database.onCommitted(SESSION_DELETED, () => erasing.wake());
      erasing.start();
      expiring.start();
    },
    async stop() {
      stopListening?.();
      await Promise.all([erasing.stop(), expiring.stop()]);
    },
  };
}

function eraserRounds({ eraseAfterMs: afterMs, eraseEveryMs }: AgentConfig, deps: CleanUpDeps) {
  const { database, log, metrics, forgetContext } = deps;
  const erased = metrics.counter("agent_sessions_erased_total", "Deleted sessions that were erased.", ["tenant_id"]);
  const eraser = new Eraser({
    database,
    afterMs,
    log,
    forgetContext,
    onErased: (tenant_id) => erased.inc({ tenant_id }),
  });
  return new Rounds({
    name: "eraser",
    everyMs: eraseEveryMs,
    log,
    async run(signal) {
      const count = await eraser.round(signal);
      if (count > 0) log.info({ event: "agent.sessions_erased", count }, "deleted sessions: erased");
    },
  });
}

function expiryRounds({ retentionEveryMs }: AgentConfig, { database, log, metrics }: CleanUpDeps) {
  const help = "Sessions that were deleted because nobody had used them for as long as their tenant keeps them.";
  const expired = metrics.counter("agent_sessions_expired_total", help, ["tenant_id"]);
  const pruned = metrics.counter("agent_run_logs_pruned_total", "Ended runs whose events were removed.", ["tenant_id"]);
  const expiry = new Expiry({
    database,
    log,
    onExpired: (tenant_id, sessions) => expired.inc({ tenant_id }, sessions),
    onPruned: (tenant_id) => pruned.inc({ tenant_id }),
  });
  return new Rounds({
    name: "expiry",
    everyMs: retentionEveryMs,
    log,
    async run(signal) {
      for (const [resource, count] of Object.entries(await expiry.round(signal))) {
        if (count > 0) log.info({ event: "agent.expired", resource, count }, `${resource} past their time: removed`);
      }
    },
  });
}
