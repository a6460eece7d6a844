import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Run, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { type RunEnded, RunEndedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { newId } from "#platform/id.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection } from "#platform/rpc/test-mesh.contract.ts";
import { says } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { eventually, plantQueued } from "../testing/queued.ts";
import { assertWellFormed, read } from "../testing/watching.ts";

const LONG = "[[slow 20]] [[deltas 2000]] tell me a story";

describe("a run in the background", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({
      agent: { pool: { runs: 5 }, queue: { sweep_interval: "100ms", orphan_after: "1s", max_queued_per_tenant: 3 } },
    });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.resolved = {};
  });

  type Wish = { message?: string; sessionId?: string; requestId?: string; timeLimit?: { seconds: bigint } };
  const queue = async (wish: Wish = {}, who = me): Promise<Run> => {
    const { run } = await mesh.one.runs.startRun({ message: "go", background: true, ...wish }, callAs(who));
    assert.ok(run !== undefined);
    return run;
  };
  const get = async (runId: string, who = me) => (await mesh.one.runs.getRun({ runId }, callAs(who))).run;
  const ended = async (runId: string): Promise<Run> => {
    assert.equal(await read(mesh.one, me, runId).ended, undefined);
    return (await get(runId)) as Run;
  };
  const rows = (sql: string) => mesh.db.tenant(me.tenantId, (tx) => tx.query<Record<string, unknown>>(sql));
  const count = async (table: string) => (await rows(`SELECT 1 FROM agent.${table}`)).length;
  /** Fills the tenant's share, so that what is queued stays there. */
  const full = async () => {
    mesh.neighbours.resolved = { limits: { maxConcurrentSessions: 1n } };
    const { run } = await mesh.one.runs.startRun({ message: LONG }, callAs(me));
    return () => mesh.one.runs.cancelRun({ runId: run?.runId ?? "" }, callAs(me));
  };
  const announced = async (): Promise<RunEnded[]> => {
    const found = await rows(
      `SELECT payload FROM agent.outbox WHERE subject LIKE 'agentmesh.run_ended.%' ORDER BY position`,
    );
    return found.map(({ payload }) => fromBinary(RunEndedSchema, payload as Uint8Array));
  };

  test("is answered as queued, done once, and its end is told on the bus", async () => {
    mesh.model.script(says("Done."));
    const queued = await queue();
    assert.deepEqual([queued.state, queued.background, queued.lastSeq], [RunState.QUEUED, true, 0n]);
    const run = await ended(queued.runId);
    assert.deepEqual([run.state, run.response, run.background], [RunState.COMPLETED, "Done.", true]);
    assert.equal(mesh.model.requests.length, 1);
    const { events } = await mesh.one.runs.listRunEvents({ runId: run.runId }, callAs(me));
    assertWellFormed(events);
    const { tenantId } = me;
    const { runId, sessionId, agentId } = run;
    assert.deepEqual(
      (await announced()).map(({ $typeName: _, ...event }) => event),
      [{ tenantId, runId, sessionId, agentId, endUserId: "", state: "completed", reason: "" }],
    );
    assert.equal(await count("queued_runs"), 0);
    const audited = (await rows("SELECT type FROM agent.audit ORDER BY time")).map(({ type }) => type);
    assert.deepEqual(audited, ["session.created", "run.queued", "run.started", "run.completed"]);
    const { messages } = await mesh.one.sessions.listMessages({ sessionId }, callAs(me));
    assert.equal(messages.length, 2);
  });

  test("a turn that somebody waits for is not announced", async () => {
    mesh.model.script(says("Done."));
    await mesh.one.chat.chat({ message: "hi" }, callAs(me));
    assert.deepEqual(await announced(), []);
  });

  test("may be watched while it is queued: signs of life, then everything from its start on", async () => {
    const makeRoom = await full();
    const { runId } = await queue();
    const reading = read(mesh.one, me, runId);
    await reading.until(() => reading.frames.some(({ case: kind }) => kind === "caughtUp"), "the watcher to be there");
    const { runs } = await mesh.one.runs.listRuns({ state: RunState.QUEUED }, callAs(me));
    assert.deepEqual(
      runs.map((run) => run.runId),
      [runId],
    );
    await makeRoom();
    assert.equal(await reading.ended, undefined);
    assert.deepEqual([reading.events[0]?.type, reading.events.at(-1)?.type], ["run_started", "run_completed"]);
  });

  test("keeps its session, and is refused in one that is in use", async () => {
    const makeRoom = await full();
    const { runId, sessionId } = await queue();
    const busy = await rejection(queue({ sessionId }));
    assert.deepEqual([reasonOf(busy), factsOf(busy)["run_id"]], ["SESSION_BUSY", runId]);
    await makeRoom();
    await ended(runId);
    mesh.model.script(says("Again."));
    assert.equal((await ended((await queue({ sessionId })).runId)).state, RunState.COMPLETED);
    const { messages } = await mesh.one.sessions.listMessages({ sessionId }, callAs(me));
    assert.equal(messages.length, 4);
  });

  test("twenty times at once with one key is one run", async () => {
    const requestId = randomUUID();
    const runs = await Promise.all(Array.from({ length: 20 }, () => queue({ requestId })));
    assert.equal(new Set(runs.map(({ runId }) => runId)).size, 1);
    assert.equal(await count("runs"), 1);
    await ended(runs[0]?.runId ?? "");
    assert.equal(mesh.model.requests.length, 1);
    assert.equal((await queue({ requestId })).state, RunState.COMPLETED, "a later repeat is told how it ended");
    const other = await rejection(queue({ requestId, message: "other" }));
    assert.equal(reasonOf(other), "IDEMPOTENCY_KEY_REUSED");
  });

  test("that is cancelled before it has begun has that for its one event, and frees its session", async () => {
    const makeRoom = await full();
    const { runId, sessionId } = await queue();
    const reading = read(mesh.one, me, runId);
    const { run } = await mesh.one.runs.cancelRun({ runId }, callAs(me));
    assert.equal(run?.state, RunState.CANCELLED);
    assert.equal(await reading.ended, undefined);
    assert.deepEqual(
      reading.events.map(({ type, seq }) => [type, seq]),
      [["run_cancelled", 1n]],
    );
    assert.deepEqual(
      (await announced()).map(({ state }) => state),
      ["cancelled"],
    );
    assert.equal(await count("queued_runs"), 0);
    await makeRoom();
    mesh.model.script(says("Free."));
    assert.equal((await mesh.one.chat.chat({ message: "hi", sessionId }, callAs(me))).response, "Free.");
  });

  test("whose time is over before it has begun fails with RUN_TIMEOUT; and one at work is broken off", async () => {
    const makeRoom = await full();
    const queued = await queue({ timeLimit: { seconds: 1n } });
    assert.ok(queued.deadline !== undefined);
    const late = await ended(queued.runId);
    assert.equal(late.state, RunState.FAILED);
    assert.deepEqual(
      (await announced()).map(({ state, reason }) => [state, reason]),
      [["failed", "RUN_TIMEOUT"]],
    );
    await makeRoom();
    for (const background of [true, false]) {
      const { run } = await mesh.one.runs.startRun(
        { message: LONG, background, timeLimit: { seconds: 1n } },
        callAs(me),
      );
      const broken = await ended(run?.runId ?? "");
      const { events } = await mesh.one.runs.listRunEvents({ runId: broken.runId, pageSize: 200 }, callAs(me));
      assertWellFormed(events);
      assert.equal(broken.state, RunState.FAILED);
      assert.match(broken.error?.message ?? "", /time limit/);
    }
    for (const seconds of [0n, 86_401n]) {
      const error = await rejection(queue({ timeLimit: { seconds } }));
      assert.equal(reasonOf(error), "FIELD_INVALID");
    }
  });

  test("is refused as a turn is: an unknown agent, a session of nobody's, too long a message", async () => {
    mesh.neighbours.maxMessageCharacters = 10n;
    const cases: [object, string][] = [
      [{ agentId: "agt_none" }, "RESOURCE_NOT_FOUND"],
      [{ sessionId: newId("ses") }, "RESOURCE_NOT_FOUND"],
      [{ message: "x".repeat(11) }, "FIELD_INVALID"],
    ];
    for (const [wish, reason] of cases) assert.equal(reasonOf(await rejection(queue(wish))), reason);
    mesh.neighbours.maxMessageCharacters = 100_000n;
    assert.equal(await count("runs"), 0);
  });

  test("whose agent is gone when it is to begin fails for that reason at once", async () => {
    const makeRoom = await full();
    mesh.neighbours.agentIds.add("agt_soon_gone");
    const { runId } = (
      await mesh.one.runs.startRun({ message: "go", background: true, agentId: "agt_soon_gone" }, callAs(me))
    ).run ?? { runId: "" };
    mesh.neighbours.agentIds.delete("agt_soon_gone");
    await makeRoom();
    const run = await ended(runId);
    assert.deepEqual([run.state, run.error?.code], [RunState.FAILED, Code.NotFound]);
  });

  test("of a session that is deleted goes with it", async () => {
    const makeRoom = await full();
    const { runId, sessionId } = await queue();
    await mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
    await makeRoom();
    const gone = await rejection(mesh.one.runs.getRun({ runId }, callAs(me)));
    assert.ok(gone instanceof ConnectError && gone.code === Code.NotFound);
    assert.equal(await count("queued_runs"), 0);
  });

  test("one too many is refused, and told when to come again", async () => {
    const makeRoom = await full();
    const queued = [await queue(), await queue(), await queue()];
    const refused = await rejection(queue());
    assert.ok(refused instanceof ConnectError);
    assert.deepEqual([reasonOf(refused), factsOf(refused)["scope"]], ["CONCURRENCY_LIMIT", "queue"]);
    assert.equal(refused.findDetails(RetryInfoSchema).length, 1);
    assert.equal(await count("runs"), 4);
    await makeRoom();
    for (const { runId } of queued) await ended(runId);
  });

  test("whose every try was lost with its process is given up, and so is one that cost its owners", async () => {
    const [lost] = await plantQueued(mesh, me, { dueInMs: 60_000 });
    await rows("UPDATE agent.queued_runs SET attempts = 5, due_at = now()");
    assert.equal((await ended(lost?.runId ?? "")).state, RunState.FAILED);
    const { runId, sessionId } = await queue({ message: LONG });
    const reading = read(mesh.one, me, runId);
    await reading.until(() => reading.events.length > 1, "it to begin");
    await rows(
      "UPDATE agent.runs SET attempt = 5, owner = 'ins_gone', epoch = 9, lease_expires = now() WHERE state = 2",
    );
    assert.equal((await ended(runId)).state, RunState.FAILED);
    const { deadLetters } = await mesh.one.runs.listDeadLetters({}, callAs(me));
    assert.deepEqual(
      deadLetters.map((letter) => [letter.runId, letter.reason]),
      [
        [runId, "RUN_POISONED"],
        [lost?.runId, "RUN_POISONED"],
      ],
    );
    assert.deepEqual(
      (await announced()).map(({ state, reason }) => [state, reason]),
      Array(2).fill(["failed", "RUN_POISONED"]),
    );
    mesh.model.reset();
    mesh.model.script(says("At last."));
    const { run } = await mesh.one.runs.redriveDeadLetter({ runId }, callAs(me));
    assert.equal(run?.sessionId, sessionId);
    assert.equal((await ended(run?.runId ?? "")).state, RunState.COMPLETED);
  });

  test("is counted: those that wait, and what became of each try", async () => {
    const makeRoom = await full();
    const { runId } = await queue();
    const shown = () => mesh.one.metrics.text();
    await eventually(async () => /agent_queue_runs [1-9]/.test(await shown()), "the gauge");
    const parked = `agent_queue_activations_total{tenant_id="${me.tenantId}",outcome="no_room"}`;
    await eventually(async () => (await shown()).includes(parked), "a try in vain");
    await makeRoom();
    await ended(runId);
    assert.ok((await shown()).includes(parked.replace("no_room", "begun")));
  });
});
