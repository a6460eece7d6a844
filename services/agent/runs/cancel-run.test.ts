import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, violations } from "#platform/testing/service-under-test.ts";
import { ledgerOf } from "../store/ledger-store.ts";
import { type AgentMesh, openAgentMesh, type Replica, warmUp } from "../testing/agent-mesh.ts";
import { payloads } from "../testing/play-run.ts";
import { deltas, openItems, type Reading, read } from "../testing/watching.ts";
import { UsageTotal } from "./usage-total.ts";

/** From the call of CancelRun until what the run was waiting for is broken off. */
const WITHIN_MS = 1_000;

describe("CancelRun", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, agent: { lease: "20s", heartbeat: "1s" } });
    await warmUp(mesh);
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
  });

  const cancel = (runId: string, replica: Replica, requestId = "") =>
    replica.runs.cancelRun({ runId, requestId }, callAs(me));
  const start = async () => {
    const { run } = await mesh.one.runs.startRun({ message: "go" }, callAs(me));
    return run?.runId ?? "";
  };
  const entriesOf = (runId: string) => mesh.db.tenant(me.tenantId, (tx) => ledgerOf(tx, runId));
  const asked = (runId: string) =>
    mesh.db.tenant(me.tenantId, (tx) =>
      tx.query("SELECT FROM agent.audit WHERE type = 'run.cancel_requested' AND resource = $1", [runId]),
    );

  /** Cancels through the replica that does not own the run; milliseconds until `broken` held, counted from the call. */
  async function cancelledWithin(runId: string, broken: () => boolean): Promise<number> {
    const calledAt = performance.now();
    const answer = cancel(runId, mesh.two);
    await until(broken, "what the run waits for to be broken off");
    const took = performance.now() - calledAt;
    assert.equal((await answer).run?.state, RunState.CANCELLED);
    return took;
  }

  /** The end names the caller, and what the ledger has is what it says was used. */
  async function assertBilled(reading: Reading, runId: string) {
    await reading.ended;
    const [end] = payloads(reading.events, "runCancelled");
    assert.equal(end?.cause, "caller");
    const entries = await entriesOf(runId);
    const total = new UsageTotal();
    for (const entry of entries) total.add(entry);
    assert.deepEqual(end.usage, total.summary());
    return entries;
  }

  test("breaks off the model's stream of another replica at once, and what it had told is booked", async (t) => {
    const usage = { input_tokens: 700, cache_read_input_tokens: 50, cache_creation_input_tokens: 6, output_tokens: 90 };
    mesh.model.script(says("one two three four five six seven", { usage, fault: { hang: { afterEvents: 8 } } }));
    const runId = await start();
    const reading = read(mesh.two, me, runId);
    // Live, or as what stood there already when the reader came.
    const said = (seen: Reading) => deltas(seen).length + openItems(seen).flatMap(({ items }) => items).length;
    await reading.until((seen) => said(seen) > 0, "text");
    assert.equal(mesh.model.requests[0]?.abandoned, false, "it hangs in the middle");
    const took = await cancelledWithin(runId, () => mesh.model.requests[0]?.abandoned === true);
    t.diagnostic(`the model's socket was closed ${took.toFixed(0)} ms after the call`);
    assert.ok(took <= WITHIN_MS, `${took} ms`);
    const entries = await assertBilled(reading, runId);
    const [entry] = entries;
    assert.equal(entries.length, 1);
    assert.equal(entry?.aborted, true);
    assert.deepEqual(
      [entry?.inputTokens, entry?.cacheReadTokens, entry?.cacheWriteTokens, entry?.outputTokens],
      [700n, 50n, 6n, 1n],
      "as the beginning of the stream has told",
    );
    assert.equal(mesh.model.requests.length, 1);
  });

  test("aborts a tool that another replica waits for, and the turn before it is booked", async (t) => {
    let aborted = false;
    const begun = Promise.withResolvers<void>();
    mesh.neighbours.executeTool = (_, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          aborted = true;
          reject(signal.reason);
        });
        begun.resolve();
      });
    mesh.model.script(turnOf(toolUse("echo", {})));
    const runId = await start();
    const reading = read(mesh.two, me, runId);
    await begun.promise;
    const took = await cancelledWithin(runId, () => aborted);
    t.diagnostic(`the tool's signal fired ${took.toFixed(0)} ms after the call`);
    assert.ok(took <= WITHIN_MS, `${took} ms`);
    const entries = await assertBilled(reading, runId);
    assert.deepEqual(
      entries.map(({ aborted: broken, outputTokens }) => [broken, outputTokens > 0n]),
      [[false, true]],
    );
  });

  test("with a request id is one request: repeated by any replica it has the same answer, for another run it is refused", async () => {
    const requestId = randomUUID();
    const slow = { ...says("one two three four five six"), paceMs: 300 };
    mesh.model.script(says("Done."), slow, slow);
    const other = await start();
    await read(mesh.one, me, other).ended;
    const runId = await start();
    const answers = await Promise.all(mesh.replicas.map((replica) => cancel(runId, replica, requestId)));
    answers.push(await cancel(runId, mesh.two, requestId));
    assert.deepEqual(
      answers.map(({ run }) => run?.state),
      [RunState.CANCELLED, RunState.CANCELLED, RunState.CANCELLED],
    );
    assert.equal(new Set(answers.map(({ appliedThroughSeq }) => appliedThroughSeq)).size, 1);
    assert.equal((await asked(runId)).length, 1, "asked for once");
    // One that has ended, and one that has not.
    const going = await start();
    for (const wrong of [other, going]) {
      assert.equal(reasonOf(await rejection(cancel(wrong, mesh.one, requestId))), "IDEMPOTENCY_KEY_REUSED");
      assert.deepEqual(await violations(cancel(wrong, mesh.two, requestId)), ["request_id"]);
      assert.equal((await asked(wrong)).length, 0);
    }
    // The key of a cancel that changed nothing is used as well.
    const late = randomUUID();
    assert.equal((await cancel(other, mesh.one, late)).run?.state, RunState.COMPLETED);
    assert.equal(reasonOf(await rejection(cancel(going, mesh.one, late))), "IDEMPOTENCY_KEY_REUSED");
    await cancel(going, mesh.one);
  });
});
