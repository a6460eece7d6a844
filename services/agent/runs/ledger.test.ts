import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { ModelCallPurpose } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { UsageSummary } from "#gen/agentmesh/common/v1/usage_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { fails, says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type LedgerEntry, ledgerOf } from "../store/ledger-store.ts";
import { type AgentMesh, openAgentMesh, warmUp } from "../testing/agent-mesh.ts";
import { erased } from "../testing/erased.ts";
import type { Neighbours } from "../testing/neighbours.ts";
import { payloads, playRun } from "../testing/play-run.ts";
import { deltas, read } from "../testing/watching.ts";
import { UsageTotal } from "./usage-total.ts";

describe("the ledger", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let usual: Neighbours;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, agent: { max_attempts: "1" } });
    await warmUp(mesh);
    usual = { ...mesh.neighbours };
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
  });
  afterEach(() => {
    Object.assign(mesh.neighbours, usual);
    mesh.model.reset();
    mesh.one.wake();
  });

  const entriesOf = (runId: string) => mesh.db.tenant(me.tenantId, (tx) => ledgerOf(tx, runId));

  function totalOf(entries: readonly LedgerEntry[]): UsageSummary {
    const total = new UsageTotal();
    for (const entry of entries) total.add(entry);
    return total.summary();
  }

  /** The end's usage is the sum of the entries, and of its parts. */
  function assertAddsUp(usage: UsageSummary | undefined, entries: readonly LedgerEntry[]): void {
    assert.ok(usage !== undefined);
    assert.deepEqual(usage, totalOf(entries));
    const sum = usage.byModel.reduce((cost, one) => cost + (one.costNanoUsd ?? 0n), 0n);
    assert.equal(usage.costNanoUsd, sum);
  }

  test("behaviour 45: total cost is the sum by model and the sum of entries; each step has its own", async () => {
    const usage = {
      input_tokens: 1_000,
      cache_read_input_tokens: 200,
      cache_creation_input_tokens: 30,
      output_tokens: 50,
    };
    mesh.neighbours.agent = { ...usual.agent, fallbacks: [{ llmModel: "claude-sonnet-5-5" }] };
    const fault = { delayHeadersMs: 200 };
    mesh.model.script({ ...turnOf(toolUse("echo", {})), usage, fault }, fails(401), says("Done.", { usage }));
    const { stored, events, runId } = await playRun(mesh, me);
    const entries = await entriesOf(runId);
    assert.deepEqual(
      entries.map(({ model, purpose }) => [model, purpose]),
      [
        ["claude-haiku-5-5", ModelCallPurpose.TURN],
        ["claude-sonnet-5-5", ModelCallPurpose.TURN],
      ],
    );
    const end = payloads(stored, "runCompleted")[0];
    assertAddsUp(end?.usage, entries);
    assert.ok((end?.usage?.costNanoUsd ?? 0n) > 0n);
    const steps = payloads(stored, "stepCompleted").map((step) => step.usage?.costNanoUsd ?? -1n);
    assert.equal(
      steps.reduce((sum, cost) => sum + cost, 0n),
      end?.usage?.costNanoUsd,
    );
    const booked = payloads(events, "modelCallBooked");
    assert.deepEqual(
      booked.map(({ entryId }) => entryId),
      entries.map(({ entryId }) => entryId),
    );
  });

  test("behaviour 45: an unknown price is no price, with one warning, and never 0", async () => {
    mesh.neighbours.agent = { ...usual.agent, llmModel: "nobody-knows-1" };
    for (let i = 0; i < 2; i++) {
      mesh.model.script(says("Yes."));
      const { stored, runId } = await playRun(mesh, me);
      assert.equal((await entriesOf(runId))[0]?.costNanoUsd, undefined);
      const usage = payloads(stored, "runCompleted")[0]?.usage;
      assert.ok(usage !== undefined && usage.costNanoUsd === undefined && usage.totalTokens > 0n);
    }
    const warnings = mesh.one.logged.filter(({ event }) => event === "model.price_unknown");
    assert.equal(warnings.length, 1);
  });

  test("behaviour 46: the last summary of a run without turns left has an entry of its own purpose", async () => {
    mesh.neighbours.agent = { ...usual.agent, maxIterations: 1 };
    mesh.model.script(turnOf(toolUse("echo", {})), says("So far so good."));
    const { runId, stored } = await playRun(mesh, me, { endUserId: "ada" });
    const entries = await entriesOf(runId);
    assert.deepEqual(
      entries.map(({ purpose }) => purpose),
      [ModelCallPurpose.TURN, ModelCallPurpose.SUMMARY],
    );
    assertAddsUp(payloads(stored, "runCompleted")[0]?.usage, entries);
    const rows = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query("SELECT DISTINCT agent_id, end_user_id FROM agent.model_calls WHERE run_id = $1", [runId]),
    );
    assert.deepEqual(rows, [{ agent_id: "agt_default", end_user_id: "ada" }]);
  });

  test("behaviour 46: a stream that is cancelled is booked with what it had used", async () => {
    const { run } = await mesh.one.runs.startRun({ message: "[[slow 20]] [[deltas 2000]] a story" }, callAs(me));
    const { runId = "" } = run ?? {};
    const reading = read(mesh.one, me, runId);
    await reading.until((seen) => deltas(seen).length > 2, "text");
    await mesh.one.runs.cancelRun({ runId }, callAs(me));
    await reading.ended;
    const entries = await entriesOf(runId);
    assert.deepEqual(
      entries.map(({ aborted }) => aborted),
      [true],
    );
    assert.ok((entries[0]?.inputTokens ?? 0n) > 0n);
    const end = payloads(reading.events, "runCancelled")[0];
    assertAddsUp(end?.usage, entries);
  });

  test("behaviour 46: so is one whose provider tells its usage at the end only: without tokens, and at no known price", async () => {
    mesh.neighbours.agent = { ...usual.agent, llmProvider: "openai", llmModel: "gpt-6-sol" };
    const { run } = await mesh.one.runs.startRun({ message: "[[slow 20]] [[deltas 2000]] a story" }, callAs(me));
    const { runId = "" } = run ?? {};
    const reading = read(mesh.one, me, runId);
    await reading.until((seen) => deltas(seen).length > 2, "text");
    await mesh.one.runs.cancelRun({ runId }, callAs(me));
    await reading.ended;
    const entries = await entriesOf(runId);
    assert.deepEqual(
      entries.map(({ provider, model, aborted, inputTokens, outputTokens, costNanoUsd }) => [
        provider,
        model,
        aborted,
        inputTokens + outputTokens,
        costNanoUsd,
      ]),
      [["openai", "gpt-6-sol", true, 0n, undefined]],
    );
    assert.equal(payloads(reading.events, "runCancelled")[0]?.usage?.costNanoUsd, undefined);
  });

  test("behaviour 46: what a dead owner had booked is in the end that another writes", async () => {
    mesh.neighbours.executeTool = (_, signal) =>
      new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    mesh.model.script(turnOf(toolUse("echo", {})));
    const { run } = await mesh.one.runs.startRun({ message: "go" }, callAs(me));
    const { runId = "" } = run ?? {};
    await until(() => mesh.neighbours.executed.some((key) => key.startsWith(runId)), "the tool to be called");
    mesh.one.freeze();
    const reading = read(mesh.two, me, runId);
    await reading.ended;
    const entries = await entriesOf(runId);
    assert.equal(entries.length, 1, "booked before the tool was called");
    assertAddsUp(payloads(reading.events, "runFailed")[0]?.usage, entries);
    mesh.one.wake();
  });

  test("keeps what a session has cost when it is deleted, without its user", async () => {
    mesh.model.script(says("Yes."));
    const { runId, sessionId } = await playRun(mesh, me, { endUserId: "ada" });
    await mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
    await erased(mesh.db, me.tenantId);
    const rows = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query("SELECT end_user_id FROM agent.model_calls WHERE run_id = $1", [runId]),
    );
    assert.deepEqual(rows, [{ end_user_id: "" }]);
  });
});
