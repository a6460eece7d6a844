import type { ClientToolResult } from "#gen/agentmesh/agent/v1/client_tool_pb.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { adapterOf } from "../adapters/adapters.ts";
import { canonical } from "../domain/canonical.ts";
import { reaches, writeReach } from "../domain/ownership.ts";
import { clientCallOver, otherClientResult, unknownClientCall } from "../errors.ts";
import { durableBody } from "../runs/engine-payloads.ts";
import type { EventBody } from "../runs/event-envelope.ts";
import { MaskedOutput } from "../runs/masked-output.ts";
import { fromStoredPlan } from "../runs/run-plan.ts";
import { clientCallsOf, settleClientCall } from "../store/client-call-store.ts";
import { planOf } from "../store/resume-store.ts";
import { type RunRow, runById } from "../store/run-store.ts";
import { type ClientResult, parseClientResult } from "./client-result.ts";
import { type Advanced, advance, lockSuspended, type OnAdvanced } from "./suspended-run.ts";

export interface ClientResultsDeps {
  database: Database;
  onAdvanced: OnAdvanced;
}

/** Results of tools that a run's caller executes. */
export class ClientResults {
  readonly #deps: ClientResultsDeps;

  constructor(deps: ClientResultsDeps) {
    this.#deps = deps;
  }

  /**
   * Hands results in; the run goes on when nothing else is awaited. Throws NOT_FOUND for a run out of reach, FIELD_INVALID
   * for a call that the run never waited for and for a result that is too large, FIELD_CONFLICT where another result was
   * handed in before, RUN_NOT_ACTIVE where none is waited for any more. Then none of them is taken.
   */
  async submit(
    call: Call,
    request: { runId: string; results: readonly ClientToolResult[]; requestId: string },
  ): Promise<RunRow> {
    const { runId, requestId } = request;
    const results = request.results.map(parseClientResult);
    const content = canonical({
      runId,
      results: results.map(({ callId, digest }) => [callId, digest.toString("hex")]),
    });
    const key = { schema: "agent", call, method: "RunService.SubmitToolResults", requestId, request: content };
    const options = { signal: call.signal, deadline: call.deadline };
    const { run, advanced } = await this.#deps.database.tenant(
      call.principal.tenantId,
      async (tx) => {
        const found = await runById(tx, runId, true);
        if (found === undefined || !reaches(writeReach(call.principal), found)) throw notFound("run");
        let advanced: Advanced | undefined;
        await idempotent(tx, key, async () => {
          const fresh = await freshOf(tx, runId, results);
          if (fresh.length > 0) advanced = await take(tx, call, runId, fresh);
          return new Uint8Array();
        });
        return { run: (await runById(tx, runId)) ?? raise(notFound("run")), advanced };
      },
      options,
    );
    if (advanced !== undefined) this.#deps.onAdvanced(advanced);
    return run;
  }
}

/** Those that were not handed in before. */
async function freshOf(tx: Tx, runId: string, results: readonly ClientResult[]): Promise<ClientResult[]> {
  const ids = results.map(({ callId }) => callId);
  const calls = new Map((await clientCallsOf(tx, runId, ids)).map((row) => [row.call_id, row]));
  return results.filter((result, i) => {
    const call = calls.get(result.callId);
    if (call === undefined) throw unknownClientCall(i);
    if (ids.indexOf(result.callId) < i) throw otherClientResult(i);
    if (call.state === "WAITING") return true;
    if (call.state !== "ANSWERED") throw clientCallOver(result.callId);
    if (call.answer_sha256?.equals(result.digest) !== true) throw otherClientResult(i);
    return false;
  });
}

async function take(tx: Tx, call: Call, runId: string, results: readonly ClientResult[]): Promise<Advanced> {
  const run = (await lockSuspended(tx, runId)) ?? raise(clientCallOver(results[0]?.callId ?? ""));
  for (const { callId, digest } of results) {
    await settleClientCall(tx, runId, callId, { state: "ANSWERED", answerSha256: digest });
  }
  const details = { call_ids: results.map(({ callId }) => callId) };
  await audit(tx, "agent", call, {
    type: "tool_results.submitted",
    resource: runId,
    sessionId: run.session_id,
    details,
  });
  return advanceWith(tx, run, results, call.principal.tenantId);
}

/** Appends the results as what the calls have answered. */
export async function advanceWith(
  tx: Tx,
  run: RunRow,
  results: readonly Pick<ClientResult, "callId" | "outcome">[],
  tenantId: string,
): Promise<Advanced> {
  const tools = new Map((run.awaiting ?? []).map(({ call_id, tool }) => [call_id, tool]));
  const plan = await planOf(tx, run.run_id);
  const hides = adapterOf((plan && fromStoredPlan(plan)?.resolved.agent?.adapter) ?? "")?.hides;
  const masked = hides && new MaskedOutput(hides);
  const bodies = results.flatMap(({ callId, outcome }): EventBody[] => {
    const event = {
      type: "tool_call_completed" as const,
      itemId: callId,
      tool: tools.get(callId) ?? "",
      content: outcome.content,
      structuredJson: outcome.structuredJson ?? "",
      isError: outcome.isError ?? false,
      durationMs: 0,
    };
    return (masked?.of(event) ?? [event]).map((shown) => durableBody(shown as typeof event));
  });
  const came = new Set(results.map(({ callId }) => callId));
  return advance(tx, run, bodies, { came: ({ call_id }) => came.has(call_id), cause: "tool_results", tenantId });
}
