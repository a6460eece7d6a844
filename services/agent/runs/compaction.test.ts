import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { ModelCallPurpose } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { ledgerOf } from "../store/ledger-store.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { erased } from "../testing/erased.ts";
import { notices, payloads, playRun, sent } from "../testing/play-run.ts";

const WINDOW = 4_000;
/** About 1 000 tokens. */
const LONG = "All about the garden and its many kinds of roses. ".repeat(80);

describe("a session that is longer than the model's window", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({ models: { context_windows: { "claude-haiku-5-5": WINDOW } } });
    mesh.neighbours.agent = {
      ...mesh.neighbours.agent,
      maxTokens: 200,
      compactionConfig: { preset: "customer_service", enabled: true, keepTurns: 1 },
    };
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
  });

  const count = async (table: string) =>
    mesh.db.tenant(me.tenantId, async (tx) => (await tx.query(`SELECT 1 FROM agent.${table}`)).length);

  /** A session of four long turns, of which the last one is compacted before it is answered. */
  async function compacted() {
    mesh.model.script(says("Answer 1."), says("Answer 2."), says("Answer 3."));
    const { sessionId } = await playRun(mesh, me, { message: `Question 1. ${LONG}` });
    await playRun(mesh, me, { sessionId, message: `Question 2. ${LONG}` });
    await playRun(mesh, me, { sessionId, message: `Question 3. ${LONG}` });
    mesh.model.script(says("<summary>Roses, twice.</summary>"), says("Answer 4."));
    const run = await playRun(mesh, me, { sessionId, message: `Question 4. ${LONG}` });
    return { ...run, sessionId };
  }

  test("behaviour 23: is compacted, of which an event tells, with tokens and what is kept", async () => {
    const { stored, runId } = await compacted();
    const [event] = payloads(stored, "contextCompacted");
    assert.equal(event?.summary, "Roses, twice.");
    assert.ok(event.tokensBefore > event.tokensAfter && event.tokensAfter > 0n);
    assert.match(event.firstKeptMessageId, /^msg_/);
    assert.deepEqual(notices(stored), []);
    const booked = await mesh.db.tenant(me.tenantId, (tx) => ledgerOf(tx, runId));
    assert.deepEqual(
      booked.map(({ purpose }) => purpose),
      [ModelCallPurpose.SUMMARY, ModelCallPurpose.TURN],
    );
    const summary = mesh.model.requests.at(-2);
    assert.match(sent(summary).at(-1) ?? "", /customer service conversation/);
  });

  test("is shown from then on as its first request, the summary and what came behind", async () => {
    const { sessionId } = await compacted();
    mesh.model.script(says("Answer 5."));
    const { stored } = await playRun(mesh, me, { sessionId, message: "Question 5." });
    assert.deepEqual(payloads(stored, "contextCompacted"), [], "once");
    const shown = sent(mesh.model.requests.at(-1)).join("\n");
    for (const part of ["Question 1", "Roses, twice.", "Answer 3", "Question 4", "Answer 4", "Question 5"]) {
      assert.ok(shown.includes(part), `${part} in ${shown.replaceAll(LONG, "…")}`);
    }
    for (const part of ["Answer 1", "Question 2", "Answer 2"]) assert.ok(!shown.includes(part), part);
  });

  test("stays whole for who reads it", async () => {
    const { sessionId } = await compacted();
    const { messages } = await mesh.one.sessions.listMessages({ sessionId }, callAs(me));
    const texts = messages.map(({ parts }) => (parts[0]?.part.case === "text" ? parts[0].part.value.text : ""));
    assert.deepEqual(
      texts.map((text) => text.split(".")[0]),
      [1, 2, 3, 4].flatMap((n) => [`Question ${n}`, `Answer ${n}`]),
    );
  });

  test("is compacted again on top of what it was compacted to", async () => {
    const { sessionId } = await compacted();
    mesh.model.script(says("<summary>Roses, four times.</summary>"), says("Answer 5."));
    const again = await playRun(mesh, me, { sessionId, message: `Question 5. ${LONG}` });
    assert.equal(payloads(again.stored, "contextCompacted")[0]?.summary, "Roses, four times.");
    assert.match(
      sent(mesh.model.requests.at(-2)).join("\n"),
      /Roses, twice/,
      "the summary's writer sees the one before",
    );
    mesh.model.script(says("Answer 6."));
    await playRun(mesh, me, { sessionId, message: "Question 6." });
    const shown = sent(mesh.model.requests.at(-1)).join("\n");
    assert.ok(shown.includes("Roses, four times.") && !shown.includes("Roses, twice."), shown.replaceAll(LONG, "…"));
  });

  test("is compacted inside of a run too, between two of its steps", async () => {
    mesh.neighbours.executeTool = async () => LONG;
    const call = () => turnOf(toolUse("echo", {}));
    mesh.model.script(call(), call(), call(), call(), says("<summary>Much was said.</summary>"), says("Done."));
    const { stored, sessionId } = await playRun(mesh, me, { message: "Read it all." });
    assert.equal(payloads(stored, "contextCompacted").length, 1);
    mesh.model.script(says("Yes."));
    await playRun(mesh, me, { sessionId, message: "Sure?" });
    const shown = sent(mesh.model.requests.at(-1)).join("\n");
    assert.ok(shown.includes("Read it all.") && shown.includes("Much was said."), shown.replaceAll(LONG, "…"));
  });

  test("leaves nothing behind when it is deleted", async () => {
    const { sessionId } = await compacted();
    assert.equal(await count("compactions"), 1);
    await mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
    await erased(mesh.db, me.tenantId);
    assert.deepEqual([await count("compactions"), await count("messages")], [0, 0]);
  });
});
