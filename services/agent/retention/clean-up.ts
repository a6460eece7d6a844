import type { Database } from "#platform/postgres/database.ts";
import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { AgentConfig } from "../config.ts";
import { Eraser, SESSION_DELETED } from "./eraser.ts";
import { Rounds } from "./rounds.ts";

export interface CleanUpDeps {
  database: Database;
  log: Log;
  metrics: Metrics;
}

/** The jobs that remove what need not, or must not, be kept. */
export interface CleanUp {
  start(): void;
  /** Resolves when the rounds under way have ended. */
  stop(): Promise<void>;
}

export function openCleanUp(config: AgentConfig, { database, log, metrics }: CleanUpDeps): CleanUp {
  const erased = metrics.counter("agent_sessions_erased_total", "Deleted sessions that were erased.", ["tenant_id"]);
  const eraser = new Eraser({
    database,
    afterMs: config.eraseAfterMs,
    log,
    onErased: (tenant_id) => erased.inc({ tenant_id }),
  });
  const erasing = new Rounds({
    name: "eraser",
    everyMs: config.eraseEveryMs,
    log,
    async run(signal) {
      const count = await eraser.round(signal);
      if (count > 0) log.info({ event: "agent.sessions_erased", count }, "deleted sessions: erased");
    },
  });
  let stopListening: (() => void) | undefined;
  return {
    start() {
      stopListening = database.onCommitted(SESSION_DELETED, () => erasing.wake());
      erasing.start();
    },
    async stop() {
      stopListening?.();
      await erasing.stop();
    },
  };
}
