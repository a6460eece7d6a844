import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { insertQueued } from "../store/queue-store.ts";
import { insertSession } from "../store/session-store.ts";
import type { AgentMesh } from "./agent-mesh.ts";

const WITHIN_MS = 50_000;

/** Resolves when the condition holds. */
export async function eventually(condition: () => Promise<boolean>, what: string, withinMs = WITHIN_MS): Promise<void> {
  const until = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > until) throw new Error(`waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export interface Planted {
  runId: string;
  sessionId: string;
}

export interface Planting {
  count?: number;
  /** All in this one, behind its run in progress; default, each in a session of its own. */
  sessionId?: string;
  agentId?: string;
  message?: string;
  dueInMs?: number;
}

/** Queues runs of which the bus knows nothing, in one transaction, oldest first. */
export async function plantQueued(mesh: AgentMesh, principal: Principal, planting: Planting = {}): Promise<Planted[]> {
  const { count = 1, sessionId, agentId = "agt_default", message = "go", dueInMs = 0 } = planting;
  return mesh.db.tenant(principal.tenantId, async (tx) => {
    const planted: Planted[] = [];
    for (let i = 0; i < count; i++) {
      const run = { runId: newId("run"), sessionId: sessionId ?? newId("ses") };
      if (sessionId === undefined) {
        const session = {
          sessionId: run.sessionId,
          externalId: null,
          endUserId: "",
          agentId: "",
          title: "",
          labels: {},
        };
        await insertSession(tx, session);
      }
      await insertQueued(tx, {
        ...run,
        endUserId: "",
        agentId,
        agentVersion: 1,
        principal,
        background: true,
        timeLimitMs: undefined,
        retryOf: undefined,
        input: JSON.stringify({ message: `${message} ${i}`, attachments: [], context: {} }),
        occupies: sessionId === undefined,
        dueInMs,
      });
      planted.push(run);
    }
    return planted;
  });
}

/** Runs of a tenant in the order in which they were begun, and when. */
export async function begun(mesh: AgentMesh, tenantId: string): Promise<{ runId: string; at: number }[]> {
  const rows = await mesh.db.tenant(tenantId, (tx) =>
    tx.query<{ resource: string; time: Date }>(
      `SELECT resource, time FROM agent.audit WHERE type = 'run.started' ORDER BY time`,
    ),
  );
  return rows.map(({ resource, time }) => ({ runId: resource, at: time.getTime() }));
}

/** How many runs of a tenant are in each state. */
export async function states(mesh: AgentMesh, tenantId: string): Promise<Record<number, number>> {
  const rows = await mesh.db.tenant(tenantId, (tx) =>
    tx.query<{ state: number; n: number }>("SELECT state, count(*)::int AS n FROM agent.runs GROUP BY state"),
  );
  return Object.fromEntries(rows.map(({ state, n }) => [state, n]));
}
