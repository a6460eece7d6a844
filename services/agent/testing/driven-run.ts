import { newId } from "#platform/id.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { finishRun, type RunEnd } from "../runs/run-end.ts";
import { RunLog } from "../runs/run-log.ts";
import { UsageTotal } from "../runs/usage-total.ts";
import { eventsAfter } from "../store/run-store.ts";
import { beginRun } from "../store/run-writes.ts";
import type { AgentMesh, Replica } from "./agent-mesh.ts";

/** A run without an executor: the test itself writes its log. It belongs to a replica, which serves it like any other. */
export interface DrivenRun {
  readonly runId: string;
  readonly log: RunLog;
  readonly call: Call;
  end(how?: RunEnd): Promise<void>;
  /** Takes the run from its replica, ended or not. */
  drop(): void;
  /** What is stored, as it is stored. */
  stored(): Promise<Uint8Array[]>;
}

/** Inserts a run with a long lease and gives it to the replica. */
export async function driveRun(mesh: AgentMesh, owner: Replica, principal: Principal): Promise<DrivenRun> {
  const { tenantId } = principal;
  const [runId, sessionId] = [newId("run"), newId("ses")];
  const call: Call = { principal, signal: new AbortController().signal, requestId: "req_1", ip: "", userAgent: "" };
  const lease = { owner: owner.instanceId, ownerAddress: owner.address, leaseMs: 600_000 };
  const run = await mesh.db.tenant(tenantId, (tx) =>
    beginRun(tx, {
      run: { runId, endUserId: "", agentId: "agt_1", agentVersion: 1, principal, ...lease },
      session: { created: { sessionId, agentId: "" } },
      messages: [],
      events: [],
      openStep: 0,
      audited: { call, events: [] },
    }),
  );
  const log = new RunLog({
    database: mesh.db,
    fence: { tenantId, runId, owner: run.owner, epoch: run.epoch },
    ids: { runId, sessionId, agentId: "agt_1" },
    lastDurableSeq: 0n,
    nextSeq: 1n,
    retryForMs: 5_000,
    onCommitted: () => {},
  });
  const over = Promise.withResolvers<void>();
  const leasedAt = Number.POSITIVE_INFINITY;
  owner.service.liveRuns.add({ log, controller: new AbortController(), finished: over.promise, leasedAt });
  return {
    runId,
    log,
    call,
    async end(how = { kind: "cancelled", cause: "caller" }) {
      await finishRun(log, how, { usage: new UsageTotal().summary(), call, run });
      over.resolve();
    },
    drop: () => over.resolve(),
    stored: () => mesh.db.tenant(tenantId, (tx) => eventsAfter(tx, runId, 0n, 10_000)),
  };
}
