import { toBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { durableEvent } from "../runs/event-envelope.ts";
import { endEntry, type RunEnd } from "../runs/run-end.ts";
import { storedCall } from "../runs/stored-call.ts";
import { UsageTotal } from "../runs/usage-total.ts";
import { lockQueued, type RunOfTenant } from "../store/queue-store.ts";
import { runById } from "../store/run-store.ts";
import { writeRun } from "../store/run-writes.ts";

export interface EndQueuedDeps {
  database: Database;
  /** Tells watchers everywhere that a run has new durable events. */
  announce(tenantId: string, event: AgentEvent): void;
}

/**
 * Ends a run that waits in the queue, as whoever `call` is; default, the one that it was to work for. Its one event is its
 * end. False when it does not wait any more: it has begun, or has ended.
 */
export async function endQueued(
  { database, announce }: EndQueuedDeps,
  { tenantId, runId }: RunOfTenant,
  end: RunEnd,
  { call, signal }: { call?: Call; signal: AbortSignal },
): Promise<boolean> {
  const event = await database.tenant(
    tenantId,
    async (tx) => {
      if (!(await lockQueued(tx, runId))) return undefined;
      const run = await runById(tx, runId);
      if (run === undefined) return undefined;
      const ids = { runId, sessionId: run.session_id, agentId: run.agent_id };
      const usage = new UsageTotal().summary();
      const entry = endEntry(ids, end, { usage, call: call ?? storedCall(run.principal, signal), run });
      const seq = run.last_seq + 1n;
      const terminal = durableEvent(ids, seq, run.last_seq, entry.body);
      const row = { seq, type: terminal.type, event: toBinary(AgentEventSchema, terminal) };
      // Nobody owns it: the fence is that its place in the queue is locked.
      const fence = { tenantId, runId, owner: run.owner, epoch: run.epoch };
      await writeRun(tx, fence, { events: [row], lastSeq: seq, openStep: 0, end: entry.end }, "last");
      return terminal;
    },
    { signal },
  );
  if (event !== undefined) announce(tenantId, event);
  return event !== undefined;
}
