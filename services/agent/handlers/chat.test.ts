import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ChatStreamResponse } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { MessageRole, RunOutcome, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { onward } from "#platform/rpc/call.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { fails, says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";

/** Messages that are answered in pieces, one every 25 ms: for two seconds, and for longer than any test waits. */
const STORY = "[[slow 25]] [[deltas 80]] tell me a story";
const ENDLESS = "[[slow 25]] [[deltas 2000]] tell me all stories";

describe("ChatService", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh();
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
  });

  const runState = async (runId: string) => (await mesh.one.runs.getRun({ runId }, callAs(me))).run?.state;

  async function streamed(
    request: { message: string; requestId?: string; sessionId?: string },
    events: NonNullable<ChatStreamResponse["event"]>[] = [],
  ) {
    for await (const { event } of mesh.one.chat.chatStream(request, callAs(me))) if (event) events.push(event);
    return events;
  }

  /** Begins a stream, and leaves it after its first pieces of text. */
  async function leftInTheMiddle(cancelOnDisconnect: boolean): Promise<string> {
    const caller = new AbortController();
    const call = { principal: me, signal: caller.signal, requestId: "req_1", ip: "", userAgent: "" };
    let location = "";
    const options = { ...onward(call), onHeader: (headers: Headers) => (location = headers.get("location") ?? "") };
    const error = await rejection(
      (async () => {
        let texts = 0;
        for await (const { event } of mesh.one.chat.chatStream({ message: ENDLESS, cancelOnDisconnect }, options)) {
          if (event?.payload.case === "text" && ++texts === 3) caller.abort();
        }
      })(),
    );
    assert.equal(ConnectError.from(error).code, Code.Canceled);
    return /^\/api\/v1\/runs\/(run_\w+)\/events:stream$/.exec(location)?.[1] ?? "";
  }

  test("answers with text, usage, session and run, and keeps both messages", async () => {
    mesh.model.script(says("Hello.", { usage: { input_tokens: 10, output_tokens: 2, cache_read_input_tokens: 5 } }));
    const answer = await mesh.one.chat.chat({ message: "hi" }, callAs(me));
    assert.equal(answer.response, "Hello.");
    assert.equal(answer.state, RunState.COMPLETED);
    assert.equal(answer.outcome, RunOutcome.ANSWERED);
    assert.equal(answer.usage?.totalTokens, 17n);
    const { sessionId } = answer;
    const { messages } = await mesh.one.sessions.listMessages({ sessionId }, callAs(me));
    assert.deepEqual(
      messages.map(({ role, runId }) => [role, runId]),
      [
        [MessageRole.USER, answer.runId],
        [MessageRole.ASSISTANT, answer.runId],
      ],
    );
    const { session } = await mesh.one.sessions.getSession({ sessionId }, callAs(me));
    assert.equal(session?.activeRunId, "");
    assert.equal(session?.messageCount, 2);
  });

  test("streams text, tool call and tool result in order and ends with exactly one final that holds the answer", async () => {
    mesh.model.script(turnOf({ type: "text", text: "Wait. " }, toolUse("echo", { a: 1 })), says("It said so."));
    const events = await streamed({ message: "call it" });
    const kinds = events.map(({ payload }) => payload.case).filter((kind, i, all) => kind !== all[i - 1]);
    assert.deepEqual(kinds, ["text", "toolCall", "toolResult", "text", "final"]);
    assertRising(events);
    const final = events.at(-1)?.payload;
    assert.ok(final?.case === "final");
    assert.equal(final.value.content, "It said so.");
    assert.equal(final.value.response, "It said so.");
    assert.equal(final.value.state, RunState.COMPLETED);
    const call = events.find(({ payload }) => payload.case === "toolCall")?.payload;
    assert.ok(call?.case === "toolCall");
    assert.equal(mesh.neighbours.executed.at(-1), `${final.value.runId}/${call.value.callId}`);
  });

  test("a repeated stream attaches to the first one's run and replays all of it, its text too", async () => {
    const request = { message: "call it", requestId: randomUUID() };
    mesh.model.script(turnOf({ type: "text", text: "Wait. " }, toolUse("echo", {})), says("Done."));
    const first = await streamed(request);
    const again = await streamed(request);
    assert.deepEqual(outline(again), outline(first));
    assert.deepEqual(again.at(-1), first.at(-1));
    assertRising(again);
    assert.equal(mesh.model.requests.length, 2, "no model was asked again");
  });

  test("a repeated stream that joins in the middle gets what is open and goes on exactly there", async () => {
    const request = { message: STORY, requestId: randomUUID() };
    const seen: Awaited<ReturnType<typeof streamed>> = [];
    const [first, second] = await Promise.all([
      streamed(request, seen),
      until(() => seen.length > 3, "text").then(() => streamed(request)),
    ]);
    assert.ok(second.some(({ payload }) => payload.case === "openItems"));
    assert.deepEqual(outline(second), outline(first));
    assertRising(second);
  });

  test("continues a session with all that was said in it, also by the caller's own UUID in any case", async () => {
    const mine = randomUUID();
    const first = await mesh.one.chat.chat({ message: "one", sessionId: mine.toUpperCase() }, callAs(me));
    assert.equal(first.sessionId, mine.toUpperCase(), "the id that the caller knows");
    const second = await mesh.one.chat.chat({ message: "two", sessionId: mine }, callAs(me));
    const third = await mesh.one.sessions.getSession({ sessionId: mine }, callAs(me));
    assert.equal(third.session?.messageCount, 4);
    const ours = third.session?.sessionId ?? "";
    assert.match(ours, /^ses_/);
    await mesh.one.chat.chat({ message: "three", sessionId: ours }, callAs(me));
    assert.equal(mesh.model.requests.at(-1)?.body.messages.length, 5);
    assert.notEqual(first.runId, second.runId);
  });

  test("hides what the platform says to the model, and shows the user's message", async () => {
    mesh.neighbours.agent = { ...mesh.neighbours.agent, requireDoneTool: true };
    try {
      mesh.model.script(says("Finished."), turnOf(toolUse("done", { message: "All done." })));
      const answer = await mesh.one.chat.chat({ message: "do it" }, callAs(me));
      assert.equal(answer.outcome, RunOutcome.DONE_TOOL);
      const { messages } = await mesh.one.sessions.listMessages({ sessionId: answer.sessionId }, callAs(me));
      const texts = messages
        .filter(({ role }) => role === MessageRole.USER)
        .map(({ parts }) => (parts[0]?.part.case === "text" ? parts[0].part.value.text : ""));
      assert.deepEqual(texts, ["do it"]);
      assert.equal(mesh.model.requests.at(-1)?.body.messages.filter(({ role }) => role === "user").length, 2);
    } finally {
      mesh.neighbours.agent = { ...mesh.neighbours.agent, requireDoneTool: false };
    }
  });

  test("answers with state RUNNING and the run's id when its caller cannot wait longer; the run goes on", async () => {
    const call = { principal: me, signal: new AbortController().signal, requestId: "req_1", ip: "", userAgent: "" };
    const answer = await mesh.one.chat.chat({ message: ENDLESS }, onward(call, 1_500));
    assert.equal(answer.state, RunState.RUNNING);
    assert.equal(answer.response, "");
    const { runId } = answer;
    assert.equal(await runState(runId), RunState.RUNNING);
    assert.equal((await mesh.one.runs.cancelRun({ runId }, callAs(me))).run?.state, RunState.CANCELLED);
  });

  test("a run goes on when its caller leaves, unless it is to be cancelled then", async () => {
    const goesOn = await leftInTheMiddle(false);
    await mesh.settled();
    assert.equal(await runState(goesOn), RunState.RUNNING);
    const cancelled = await leftInTheMiddle(true);
    await until(() => mesh.one.service.liveRuns.get(me.tenantId, cancelled) === undefined, "the end of the run");
    const { events } = await mesh.one.runs.listRunEvents({ runId: cancelled, pageSize: 200 }, callAs(me));
    const end = events.at(-1)?.payload;
    assert.ok(end?.case === "runCancelled");
    assert.equal(end.value.cause, "disconnect");
    assert.ok(await untilAbandoned(mesh), "the model's stream was broken off");
    await mesh.one.runs.cancelRun({ runId: goesOn }, callAs(me));
    await mesh.settled();
  });

  test("fails with the run's error, and streams it as the one last event", async () => {
    mesh.model.script(fails(400));
    const error = await rejection(mesh.one.chat.chat({ message: "fail" }, callAs(me)));
    assert.equal(ConnectError.from(error).code, Code.Unavailable);
    assert.equal(reasonOf(error), "MODEL_FAILED");
    const { run_id: runId = "", kind } = factsOf(error);
    assert.equal(kind, "invalid_request");
    assert.equal(await runState(runId), RunState.FAILED);
    mesh.model.script(fails(400));
    const events = await streamed({ message: "fail" });
    const { payload } = events.at(-1) ?? {};
    assert.ok(payload?.case === "error");
    assert.equal(payload.value.reason, "MODEL_FAILED");
    assert.equal(payload.value.code, "UNAVAILABLE");
    assert.equal(events.filter(({ payload: { case: one } }) => one === "final" || one === "error").length, 1);
  });

  test("writes who did what into the audit trail, with the result's length and duration", async () => {
    const answer = await mesh.one.chat.chat({ message: "hi" }, callAs(me, { requestId: "req_audit", ip: "192.0.2.7" }));
    const rows = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query("SELECT * FROM agent.audit WHERE request_id = 'req_audit' ORDER BY time"),
    );
    assert.deepEqual(
      rows.map(({ type, resource }) => [type, resource]),
      [
        ["session.created", answer.sessionId],
        ["run.started", answer.runId],
        ["run.completed", answer.runId],
      ],
    );
    for (const row of rows) {
      assert.equal(row["subject"], me.subject);
      assert.equal(row["ip"], "192.0.2.7");
      assert.equal(row["session_id"], answer.sessionId);
    }
    assert.equal(rows[2]?.["result_length"], answer.response.length);
    assert.ok(Number(rows[2]?.["duration_ms"]) >= 0);
    assert.doesNotMatch(JSON.stringify(rows), /"hi"/, "not what was said");
  });

  test("tells the model's provider users apart without telling it who they are", async () => {
    await mesh.one.chat.chat({ message: "hi", endUserId: "jo@example.com" }, callAs(me));
    const sent = JSON.stringify(mesh.model.requests.at(-1)?.body);
    assert.match(sent, /"metadata":\{"user_id":"[0-9a-f]{32}"\}/);
    assert.doesNotMatch(sent, /example\.com/);
  });
});

/** What a chat client has on its screen at the end: texts joined, calls and results. */
function outline(events: readonly NonNullable<ChatStreamResponse["event"]>[]): string[] {
  const lines: string[] = [];
  let text: { itemId: string; content: string } | undefined;
  const flush = () => {
    if (text !== undefined) lines.push(`text ${text.content}`);
    text = undefined;
  };
  for (const { payload } of events) {
    if (payload.case === "text" || payload.case === "openItems") {
      const { itemId, content } =
        payload.case === "text" ? payload.value : { itemId: "", content: "", ...payload.value.items[0] };
      if (text !== undefined && text.itemId !== itemId) flush();
      text = { itemId, content: (text?.content ?? "") + content };
      continue;
    }
    flush();
    if (payload.case === "toolCall") lines.push(`call ${payload.value.tool} ${payload.value.argsJson}`);
    else if (payload.case === "toolResult") lines.push(`result ${payload.value.result}`);
    else lines.push(payload.case ?? "");
  }
  return lines;
}

function assertRising(events: readonly { seq: bigint }[]): void {
  for (const [i, { seq }] of events.entries()) {
    if (i > 0) assert.ok(seq > (events[i - 1]?.seq ?? 0n), `seq rises at ${seq}`);
  }
}

async function untilAbandoned(mesh: AgentMesh): Promise<boolean> {
  await until(() => mesh.model.requests.at(-1)?.abandoned === true, "the model's connection to be closed");
  return true;
}
