import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { OnBusy } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { MessageRole, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { onward } from "#platform/rpc/call.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, violations } from "#platform/testing/service-under-test.ts";
import { MAX_QUEUED_PER_SESSION } from "../queue/enqueue.ts";
import { type AgentMesh, openAgentMesh, type Replica } from "../testing/agent-mesh.ts";
import { read } from "../testing/watching.ts";

describe("a turn in a session that has a run in progress", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, agent: { lease: "5s", heartbeat: "500ms" } });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.executed.length = 0;
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
  });

  const start = async (
    request: { message?: string; sessionId?: string; onBusy?: OnBusy; requestId?: string; background?: boolean } = {},
    replica: Replica = mesh.one,
  ) => {
    const answer = await replica.runs.startRun({ message: "go", ...request }, callAs(me));
    assert.ok(answer.run !== undefined);
    return { ...answer, run: answer.run, runId: answer.run.runId, sessionId: answer.run.sessionId };
  };
  const stateOf = async (runId: string) => (await mesh.one.runs.getRun({ runId }, callAs(me))).run?.state;
  const ended = async (runId: string) => {
    const reading = read(mesh.two, me, runId);
    assert.equal(await reading.ended, undefined);
    return reading.events;
  };
  const said = async (sessionId: string) => {
    const { messages } = await mesh.two.sessions.listMessages({ sessionId, pageSize: 200 }, callAs(me));
    return messages.flatMap(({ role, parts, runId }) =>
      role === MessageRole.USER || role === MessageRole.ASSISTANT
        ? [{ runId, role, text: parts.map(({ part }) => (part.case === "text" ? part.value.text : "")).join("") }]
        : [],
    );
  };
  const texts = async (sessionId: string) => (await said(sessionId)).map(({ text }) => text);

  /** How many messages a run has not yet taken in. */
  const waitingFor = async (runId: string) => {
    const sql = "SELECT inputs_pending FROM agent.runs WHERE run_id = $1";
    const [run] = await mesh.db.tenant(me.tenantId, (tx) => tx.query<{ inputs_pending: number }>(sql, [runId]));
    return run?.inputs_pending;
  };

  /** A run whose tool is being executed until `go` is called. */
  async function held(): Promise<{ runId: string; sessionId: string; go: () => void }> {
    const tool = Promise.withResolvers<string>();
    mesh.neighbours.executeTool = () => tool.promise;
    mesh.model.script(turnOf(toolUse("echo", {})));
    const { runId, sessionId } = await start({ message: "first" });
    await until(() => mesh.neighbours.executed.length === 1, "the call");
    return { runId, sessionId, go: () => tool.resolve("done") };
  }

  test("is refused by default, with the run that is in progress", async () => {
    const { runId, sessionId, go } = await held();
    for (const onBusy of [OnBusy.UNSPECIFIED, OnBusy.REJECT]) {
      const refused = await rejection(start({ sessionId, onBusy }));
      assert.equal(reasonOf(refused), "SESSION_BUSY");
      assert.deepEqual(factsOf(refused), { run_id: runId });
    }
    go();
    await ended(runId);
  });

  test("interrupts it, wherever it is owned: it is cancelled, what it said stays, and the turn begins", async () => {
    for (const replica of mesh.replicas) {
      mesh.model.reset();
      mesh.model.script({ ...says("one two three four five six"), paceMs: 300 }, says("Here I am."));
      const { runId, sessionId } = await start({ message: "count" });
      const reading = read(mesh.one, me, runId);
      await reading.until(() => reading.events.some(({ payload }) => payload.case === "textDelta"), "some of it");
      const answer = await replica.chat.chat({ message: "stop", sessionId, onBusy: OnBusy.INTERRUPT }, callAs(me));
      assert.equal(answer.response, "Here I am.");
      const end = (await ended(runId)).at(-1)?.payload;
      assert.ok(end?.case === "runCancelled");
      assert.equal(end.value.cause, "interrupted");
      const [count, begun, stop, here] = await texts(sessionId);
      assert.deepEqual([count, stop, here], ["count", "stop", "Here I am."]);
      assert.match(begun ?? "", /^one/);
    }
  });

  test("an interrupting request that is repeated attaches to its run, and does not interrupt it", async () => {
    const { runId, sessionId } = await held();
    mesh.model.script({ ...says("a b c d e f"), paceMs: 200 });
    const requestId = randomUUID();
    const begun = await Promise.all(
      mesh.replicas.map((replica) => start({ sessionId, onBusy: OnBusy.INTERRUPT, requestId }, replica)),
    );
    const again = await start({ sessionId, onBusy: OnBusy.INTERRUPT, requestId }, mesh.two);
    assert.deepEqual(new Set([...begun, again].map((one) => one.runId)).size, 1);
    assert.equal(await stateOf(runId), RunState.CANCELLED);
    assert.equal((await ended(again.runId)).at(-1)?.type, "run_completed");
  });

  test("steers it: the message joins the run, and the call is about that run from there on", async () => {
    const { runId, sessionId, go } = await held();
    mesh.model.script(says("Red, then."));
    const requestId = randomUUID();
    const joined = await start({ message: "red", sessionId, onBusy: OnBusy.STEER, requestId }, mesh.two);
    assert.equal(joined.runId, runId);
    const again = await start({ message: "red", sessionId, onBusy: OnBusy.STEER, requestId });
    assert.deepEqual([again.runId, again.inputMessageId], [runId, joined.inputMessageId]);
    const events: string[] = [];
    const stream = async () => {
      const request = { message: "and big", sessionId, onBusy: OnBusy.STEER };
      for await (const { event } of mesh.two.chat.chatStream(request, onward(callOf(me)))) {
        events.push(event?.payload.case ?? "");
        if (event?.payload.case === "final") assert.equal(event.payload.value.runId, runId);
      }
    };
    const streaming = stream();
    const chatting = mesh.one.chat.chat({ message: "please", sessionId, onBusy: OnBusy.STEER }, callAs(me));
    await until(async () => (await waitingFor(runId)) === 3, "all three");
    await until(() => mesh.one.service.liveRuns.all().some(({ log }) => log.inputsDue), "the nudge");
    go();
    const answer = await chatting;
    assert.deepEqual([answer.runId, answer.response], [runId, "Red, then."]);
    await streaming;
    assert.equal(events.at(-1), "final");
    assert.equal(events.includes("toolCall"), false, "what was before it joined is not repeated");
    const accepted = (await ended(runId)).flatMap(({ payload }) =>
      payload.case === "inputAccepted" ? [payload.value.messageId] : [],
    );
    assert.equal(accepted.length, 3);
    assert.equal(accepted[0], joined.inputMessageId);
    const free = await start({ message: "later", sessionId, onBusy: OnBusy.STEER });
    assert.notEqual(free.runId, runId, "in a free session it begins a run");
    assert.equal(free.inputMessageId, "");
  });

  test("waits behind it, in the order in which the turns came", async () => {
    const { runId, sessionId, go } = await held();
    mesh.model.script(says("1."), says("2."), says("3."));
    const second = await start({ message: "second", sessionId, onBusy: OnBusy.ENQUEUE }, mesh.two);
    assert.equal(second.run.state, RunState.QUEUED);
    const waiting = mesh.one.chat.chat({ message: "third", sessionId, onBusy: OnBusy.ENQUEUE }, callAs(me));
    await sleep(200);
    assert.equal(await stateOf(second.runId), RunState.QUEUED);
    const hasty = { message: "hasty", sessionId, onBusy: OnBusy.ENQUEUE };
    const unanswered = await mesh.one.chat.chat(hasty, { ...callAs(me), timeoutMs: 1_500 });
    assert.equal(unanswered.state, RunState.QUEUED);
    await mesh.one.runs.cancelRun({ runId: unanswered.runId }, callAs(me));
    go();
    const third = await waiting;
    assert.equal(third.response, "3.");
    assert.deepEqual(await texts(sessionId), ["first", "", "1.", "second", "2.", "third", "3."]);
    await ended(runId);
  });

  test(`at most ${MAX_QUEUED_PER_SESSION} wait for a session; one that waits can be cancelled`, async () => {
    const { sessionId, go } = await held();
    const queued = [];
    for (let i = 0; i < MAX_QUEUED_PER_SESSION; i++) {
      queued.push(await start({ message: `turn ${i}`, sessionId, onBusy: OnBusy.ENQUEUE }));
    }
    const full = await rejection(start({ sessionId, onBusy: OnBusy.ENQUEUE }));
    assert.equal(reasonOf(full), "CONCURRENCY_LIMIT");
    assert.deepEqual(factsOf(full), { scope: "session", limit: String(MAX_QUEUED_PER_SESSION) });
    const cancelled = await mesh.two.runs.cancelRun({ runId: queued[3]?.runId ?? "" }, callAs(me));
    assert.equal(cancelled.run?.state, RunState.CANCELLED);
    await start({ message: "one more", sessionId, onBusy: OnBusy.ENQUEUE });
    await mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
    assert.equal(await rejection(start({ sessionId })).then(reasonOf), "RESOURCE_NOT_FOUND");
    go();
  });

  test("a run in the background neither interrupts nor steers", async () => {
    for (const onBusy of [OnBusy.INTERRUPT, OnBusy.STEER]) {
      assert.deepEqual(await violations(start({ background: true, onBusy })), ["on_busy"]);
    }
  });

  test("whatever arrives when: runs of a session never interleave, and nothing that was taken is lost", async () => {
    const policies = [OnBusy.REJECT, OnBusy.INTERRUPT, OnBusy.ENQUEUE];
    for (let round = 0; round < 6; round++) {
      mesh.model.reset();
      mesh.model.script(...Array.from({ length: 40 }, () => ({ ...says("a b c"), paceMs: Math.random() * 10 })));
      const { sessionId, runId } = await start({ message: `round ${round}` });
      const arrivals = await Promise.allSettled(
        Array.from({ length: 10 }, async (_, i) => {
          await sleep(Math.random() * 120);
          const onBusy = policies[Math.floor(Math.random() * policies.length)] as OnBusy;
          return start({ message: `m${i}`, sessionId, onBusy }, mesh.replicas[i % 2]);
        }),
      );
      const runs = [runId];
      for (const arrival of arrivals) {
        if (arrival.status === "fulfilled") runs.push(arrival.value.runId);
        else assert.equal(reasonOf(arrival.reason), "SESSION_BUSY");
      }
      for (const one of runs) await ended(one);
      const order = (await said(sessionId)).map((message) => message.runId);
      const groups = order.filter((one, i) => one !== order[i - 1]);
      assert.equal(new Set(groups).size, groups.length, "the messages of a run are together");
      for (const one of runs) {
        // A turn that was cancelled before it began has said nothing.
        if ((await stateOf(one)) === RunState.COMPLETED) assert.ok(order.includes(one));
      }
      assert.equal((await mesh.one.sessions.getSession({ sessionId }, callAs(me))).session?.activeRunId, "");
    }
  });
});

function callOf(principal: Principal) {
  return { principal, signal: new AbortController().signal, requestId: "req_stream", ip: "", userAgent: "" };
}
