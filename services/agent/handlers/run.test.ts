import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { RunOutcome, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection } from "#platform/rpc/test-mesh.contract.ts";
import { fails, says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal, violations } from "#platform/testing/service-under-test.ts";
import { SEQ_BLOCK } from "../store/run-store.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { assertChain, assertWellFormed, durable, read } from "../testing/watching.ts";

describe("RunService", { skip: skipWithoutPostgres() }, () => {
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

  const chat = (request: { message?: string; sessionId?: string } = {}) =>
    mesh.one.chat.chat({ message: "hi", ...request }, callAs(me));
  const get = async (runId: string) => (await mesh.one.runs.getRun({ runId }, callAs(me))).run;

  test("tells what became of a run", async () => {
    mesh.model.script(says("Fine.", { usage: { input_tokens: 3, output_tokens: 1 } }));
    const { runId, sessionId } = await chat();
    const run = await get(runId);
    assert.equal(run?.state, RunState.COMPLETED);
    assert.equal(run?.outcome, RunOutcome.ANSWERED);
    assert.equal(run?.response, "Fine.");
    assert.equal(run?.sessionId, sessionId);
    assert.equal(run?.agentVersion, 3);
    assert.equal(run?.usage?.totalTokens, 4n);
    assert.ok((run?.endTime?.seconds ?? 0n) >= (run?.createTime?.seconds ?? 0n));
    mesh.model.script(fails(400));
    const failed = await rejection(chat());
    assert.equal(reasonOf(failed), "MODEL_FAILED");
    const { runs } = await mesh.one.runs.listRuns({ state: RunState.FAILED }, callAs(me));
    assert.match(runs[0]?.error?.message ?? "", /refused the request/);
  });

  test("lists runs newest first in pages, by session, the caller's own name of it too, agent, state and time", async () => {
    const mine = crypto.randomUUID();
    const first = await chat({ sessionId: mine });
    const others = [];
    for (let i = 0; i < 4; i++) others.unshift((await chat()).runId);
    const last = await chat({ sessionId: mine });
    const list = async (filter: object) =>
      (await mesh.one.runs.listRuns(filter, callAs(me))).runs.map(({ runId }) => runId);
    const all = [last.runId, ...others, first.runId];
    assert.deepEqual(await list({}), all);
    assert.deepEqual(await list({ sessionId: mine }), [last.runId, first.runId]);
    assert.deepEqual(await list({ sessionId: crypto.randomUUID() }), []);
    assert.deepEqual(await list({ sessionId: newId("ses") }), []);
    assert.deepEqual(await list({ agentId: "agt_default" }), all);
    assert.deepEqual(await list({ agentId: "agt_other" }), []);
    assert.deepEqual(await list({ state: RunState.RUNNING }), []);
    const created = (await get(others[0] ?? ""))?.createTime;
    assert.ok(created !== undefined);
    assert.deepEqual(await list({ createdAfter: created }), all.slice(0, 2));
    assert.deepEqual(await list({ createdBefore: created }), all.slice(2));
    const seen: string[] = [];
    const createdBefore = timestampFromDate(new Date(Date.now() + 86_400_000));
    let pageToken = "";
    do {
      const page = await mesh.one.runs.listRuns({ pageSize: 4, pageToken, createdBefore }, callAs(me));
      seen.push(...page.runs.map(({ runId }) => runId));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    assert.deepEqual(seen, all);
  });

  test("lists and streams the same stored events, from any cursor", async () => {
    mesh.model.script(turnOf({ type: "text", text: "Wait." }, toolUse("echo", {})), says("Done."));
    const { runId } = await chat();
    const { events } = await mesh.one.runs.listRunEvents({ runId, pageSize: 200 }, callAs(me));
    assertWellFormed(events);
    const paged: typeof events = [];
    let pageToken = "";
    do {
      const page = await mesh.one.runs.listRunEvents({ runId, pageSize: 3, pageToken }, callAs(me));
      assert.ok(page.events.length <= 3);
      paged.push(...page.events);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    assert.deepEqual(paged, events);
    for (const { seq } of events) {
      const after = events.filter((event) => event.seq > seq);
      const reading = read(mesh.one, me, runId, { afterSeq: seq });
      assert.equal(await reading.ended, undefined);
      assert.deepEqual(reading.events, after);
      const listed = await mesh.one.runs.listRunEvents({ runId, afterSeq: seq }, callAs(me));
      assert.deepEqual(listed.events, after);
    }
    for (const { type, payload, eventId, sessionId, agentId } of events) {
      assert.equal(
        type,
        payload.case?.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      );
      assert.match(eventId, /^evt_/);
      assert.ok(sessionId !== "" && agentId !== "");
    }
  });

  test("shows only the types that are asked for, without previews if so wished, and always the end", async () => {
    const { run } = await mesh.one.runs.startRun({ message: "[[slow 5]] [[deltas 30]] talk" }, callAs(me));
    const runId = run?.runId ?? "";
    const notices = read(mesh.one, me, runId, { types: ["step_started"] });
    const whole = read(mesh.one, me, runId, { omitTransient: true });
    const texts = read(mesh.one, me, runId, { types: ["text_delta"] });
    await Promise.all([notices.ended, whole.ended, texts.ended]);
    assert.deepEqual(
      notices.events.map(({ type }) => type),
      ["step_started", "run_completed"],
    );
    assert.deepEqual(whole.events, durable(whole.events));
    assertChain(whole.events);
    assert.ok(texts.events.length > 2);
    assert.ok(texts.events.slice(0, -1).every(({ type }) => type === "text_delta"));
    assert.ok([...notices.frames, ...whole.frames].every((frame) => frame.case !== "openItems"));
    assert.ok(whole.frames.some((frame) => frame.case === "caughtUp"));
    const late = read(mesh.one, me, runId, { liveOnly: true });
    assert.equal(await late.ended, undefined);
    assert.deepEqual(
      late.events.map(({ type }) => type),
      ["run_completed"],
    );
  });

  test("cancels once and answers the same after that; a run that has ended stays as it is", async () => {
    const { run } = await mesh.one.runs.startRun({ message: "[[hang]]" }, callAs(me));
    const runId = run?.runId ?? "";
    const first = await mesh.one.runs.cancelRun({ runId }, callAs(me));
    assert.equal(first.run?.state, RunState.CANCELLED);
    assert.deepEqual(await mesh.one.runs.cancelRun({ runId }, callAs(me)), first);
    const done = await chat();
    const kept = await mesh.one.runs.cancelRun({ runId: done.runId }, callAs(me));
    assert.equal(kept.run?.state, RunState.COMPLETED);
    const { events } = await mesh.one.runs.listRunEvents({ runId }, callAs(me));
    assertWellFormed(events);
  });

  test("refuses bad input by the field that is wrong, and never as a failure of its own", async () => {
    const { runId, sessionId } = await chat();
    const { runs, sessions, chat: chats } = mesh.one;
    const as = callAs(me);
    const long = "x".repeat(129);
    const cases: [string, () => Promise<unknown>, string[]][] = [
      ["no message", () => runs.startRun({}, as), ["message"]],
      ["a long message", () => runs.startRun({ message: "x".repeat(100_001) }, as), ["message"]],
      ["a long session id", () => chats.chat({ message: "hi", sessionId: long }, as), ["session_id"]],
      ["a long agent id", () => chats.chat({ message: "hi", agentId: long }, as), ["agent_id"]],
      ["a long key", () => chats.chat({ message: "hi", requestId: long }, as), ["request_id"]],
      ["a long user id", () => chats.chat({ message: "hi", endUserId: long }, as), ["end_user_id"]],
      [
        "too many attachments",
        () => chats.chat({ message: "hi", attachments: Array(11).fill({}) }, as),
        ["attachments"],
      ],
      ["no run id", () => runs.getRun({}, as), ["run_id"]],
      ["a negative page", () => runs.listRuns({ pageSize: -1 }, as), ["page_size"]],
      ["an unknown state", () => runs.listRuns({ state: 99 as RunState }, as), ["state"]],
      [
        "a time before all times",
        () => runs.listRuns({ createdAfter: { seconds: -(10n ** 14n) } }, as),
        ["created_after"],
      ],
      [
        "a time after all times",
        () => runs.listRuns({ createdBefore: { seconds: 10n ** 15n } }, as),
        ["created_before"],
      ],
      ["a broken time", () => runs.listRuns({ createdBefore: { seconds: 1n, nanos: -5 } }, as), ["created_before"]],
      ["a negative cursor", () => runs.listRunEvents({ runId, afterSeq: -1n }, as), ["after_seq"]],
      ["a bad page token", () => runs.listRunEvents({ runId, pageToken: "AAAA" }, as), ["page_token"]],
      ["a bad page token of sessions", () => sessions.listSessions({ pageToken: "x" }, as), ["page_token"]],
      ["a far skip", () => sessions.listSessions({ skip: 10_001 }, as), ["skip"]],
      ["a long title", () => sessions.createSession({ session: { title: "x".repeat(201) } }, as), ["session.title"]],
      [
        "a long label",
        () => sessions.createSession({ session: { labels: { a: "x".repeat(257) } } }, as),
        ['session.labels["a"]'],
      ],
      ["no session", () => sessions.updateSession({}, as), ["session.session_id"]],
    ];
    for (const [what, call, fields] of cases) assert.deepEqual(await violations(call()), fields, what);
    const streams: [string, Parameters<typeof read>[3], string][] = [
      ["a negative cursor", { afterSeq: -1n }, "FIELD_INVALID"],
      ["a long type", { types: ["x".repeat(65)] }, "FIELD_INVALID"],
      ["too many types", { types: Array(51).fill("notice") }, "FIELD_INVALID"],
      ["a cursor above all numbers", { afterSeq: SEQ_BLOCK + 1n }, "EVENT_CURSOR_AHEAD"],
      ["a cursor far above all numbers", { afterSeq: 2n ** 63n - 1n }, "EVENT_CURSOR_AHEAD"],
    ];
    for (const [what, options, reason] of streams) {
      assert.equal(reasonOf(await read(mesh.one, me, runId, options).ended), reason, what);
    }
    const nul: [string, () => Promise<unknown>][] = [
      ["message", () => chats.chat({ message: "a\u0000b" }, as)],
      ["session id", () => chats.chat({ message: "a", sessionId: "ses_\u0000" }, as)],
      ["key", () => chats.chat({ message: "a", requestId: "\u0000" }, as)],
      ["user", () => chats.chat({ message: "a", endUserId: "\u0000" }, as)],
      ["title", () => sessions.createSession({ session: { title: "\u0000" } }, as)],
      ["label", () => sessions.createSession({ session: { labels: { a: "\u0000" } } }, as)],
      ["run id", () => runs.getRun({ runId: "run_\u0000" }, as)],
      ["filter", () => runs.listRuns({ agentId: "\u0000" }, as)],
    ];
    for (const [what, call] of nul) assert.equal((await refusal(call())).reason, "FIELD_INVALID", what);
    const { messages } = await sessions.listMessages({ sessionId, pageSize: 2_147_483_647 }, as);
    assert.equal(messages.length, 2);
  });

  test("gives at most 200 of a list", async () => {
    const { runId } = await chat();
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute(
        `INSERT INTO agent.run_events (tenant_id, run_id, seq, type, event)
         SELECT agentmesh.current_tenant(), $1, 1000 + n, 'notice', '' FROM generate_series(1, 300) n`,
        [runId],
      ),
    );
    const events = async (pageSize: number) =>
      (await mesh.one.runs.listRunEvents({ runId, pageSize }, callAs(me))).events.length;
    assert.deepEqual([await events(0), await events(201), await events(1_000_000)], [50, 200, 200]);
  });
});
