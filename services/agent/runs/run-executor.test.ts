import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import pg from "pg";
import { type AgentEvent, RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { fails, says, type Turn, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import type { Neighbours } from "../testing/neighbours.ts";
import { assertWellFormed, deltas, durable, read } from "../testing/watching.ts";

/** A message that is answered for longer than any test waits. */
const LONG = "[[slow 20]] [[deltas 2000]] tell me a story";

describe("a run", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let usual: Neighbours;
  before(async () => {
    mesh = await openAgentMesh({
      replicas: 2,
      agents: [{ max_attempts: "1" }, { run_timeout: "1s", max_attempts: "1" }],
    });
    usual = { ...mesh.neighbours };
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
  });
  afterEach(async () => {
    mesh.one.wake();
    Object.assign(mesh.neighbours, usual);
    mesh.model.reset();
    await until(() => mesh.replicas.every(({ service }) => service.liveRuns.size === 0), "all runs to end");
    await mesh.settled();
  });

  async function start(message: string, replica = mesh.one) {
    const { run } = await replica.runs.startRun({ message }, callAs(me));
    const { runId = "", sessionId = "" } = run ?? {};
    return { runId, sessionId, reading: read(replica, me, runId) };
  }

  const stored = async (runId: string): Promise<AgentEvent[]> =>
    (await mesh.one.runs.listRunEvents({ runId, pageSize: 200 }, callAs(me))).events;

  /** Plays the turns and returns what is stored of the run, which must be well-formed and what was shown. */
  async function played(...turns: Turn[]): Promise<{ events: AgentEvent[]; runId: string; sessionId: string }> {
    mesh.model.script(...turns);
    const { runId, sessionId, reading } = await start("go");
    assert.equal(await reading.ended, undefined);
    const events = await stored(runId);
    assert.deepEqual(durable(reading.events), events);
    assertWellFormed(events);
    return { events, runId, sessionId };
  }

  function failureIn(events: readonly AgentEvent[]) {
    const end = events.at(-1)?.payload;
    assert.ok(end?.case === "runFailed", `${end?.case}`);
    const info = end.value.error?.details.map((detail) => anyUnpack(detail, ErrorInfoSchema))[0];
    return { code: end.value.error?.code, reason: info?.reason, retry: end.value.retry };
  }

  /** The session of a run is free, and its history is one that a provider takes. */
  async function assertUsable(sessionId: string): Promise<void> {
    mesh.model.script(says("Still here."));
    const { response } = await mesh.one.chat.chat({ message: "and now?", sessionId }, callAs(me));
    assert.equal(response, "Still here.");
  }

  test("fails with what the tool service said when it cannot be asked for the tools", async () => {
    mesh.neighbours.toolsDown = true;
    const { events, sessionId } = await played();
    assert.deepEqual(failureIn(events), {
      code: Code.Unavailable,
      reason: "DEPENDENCY_DOWN",
      retry: RetryAdvice.EXHAUSTED,
    });
    mesh.neighbours.toolsDown = false;
    await assertUsable(sessionId);
  });

  test("goes on with an error for an answer when the tool service goes away in the middle", async () => {
    mesh.neighbours.executeTool = () => Promise.reject(new Error("connection lost"));
    const { events } = await played(turnOf(toolUse("echo", {})), says("It did not work."));
    const result = events.find(({ payload }) => payload.case === "toolCallCompleted")?.payload;
    assert.ok(result?.case === "toolCallCompleted" && result.value.isError);
    assert.doesNotMatch(JSON.stringify(result.value.content), /connection lost/);
    assert.equal(events.at(-1)?.type, "run_completed");
  });

  test("fails with a typed error whatever the model's provider does", async () => {
    const retry = RetryAdvice.TERMINAL;
    const cases: [Turn, string, Code][] = [
      [fails(400), "MODEL_FAILED", Code.Unavailable],
      [fails(401), "MODEL_FAILED", Code.Unavailable],
      [fails(404), "MODEL_FAILED", Code.Unavailable],
      [fails(413), "CONTEXT_TOO_LONG", Code.FailedPrecondition],
    ];
    for (const [turn, reason, code] of cases) {
      const { events, sessionId } = await played(turn);
      assert.deepEqual(failureIn(events), { code, reason, retry });
      await assertUsable(sessionId);
    }
  });

  test("fails when its agent names a provider that there is not", async () => {
    mesh.neighbours.agent = { ...usual.agent, llmProvider: "nobody" };
    const { events } = await played();
    assert.equal(failureIn(events).reason, "MODEL_FAILED");
  });

  test("fails with INTERNAL, and tells nothing, for what nobody foresaw", async () => {
    mesh.neighbours.agent = { ...usual.agent, tools: ["bad schema"] };
    const { events } = await played();
    assert.equal(failureIn(events).reason, "INTERNAL");
    assert.doesNotMatch(JSON.stringify(events.at(-1)?.payload.value, noBigint), /JSON/);
    assert.ok(mesh.one.logged.some(({ event, error_type: type }) => event === "agent.error" && type === "SyntaxError"));
  });

  test("ends at its time limit, and with it the model's stream and the tools", async () => {
    const { reading, sessionId, runId } = await start("[[hang]]", mesh.two);
    assert.equal(await reading.ended, undefined);
    assert.equal(failureIn(reading.events).reason, "RUN_TIMEOUT");
    assertWellFormed(await stored(runId));
    await until(() => mesh.model.requests.at(-1)?.abandoned === true, "the model's stream to be broken off");
    await assertUsable(sessionId);
    let aborted = false;
    mesh.neighbours.executeTool = (_, signal) =>
      new Promise((_resolve, reject) =>
        signal.addEventListener("abort", () => {
          aborted = true;
          reject(signal.reason);
        }),
      );
    mesh.model.script(turnOf(toolUse("echo", {})));
    const second = await start("go", mesh.two);
    assert.equal(await second.reading.ended, undefined);
    assert.equal(failureIn(second.reading.events).reason, "RUN_TIMEOUT");
    assertWellFormed(await stored(second.runId));
    await until(() => aborted, "the tool to be told");
  });

  test("can be cancelled at any moment: it ends once, well-formed, and its session goes on", async () => {
    const script = () => {
      mesh.model.script(
        {
          content: [{ type: "text", text: "one two three" }, toolUse("echo", { a: 1 }), toolUse("echo", {})],
          paceMs: 1,
        },
        { ...says("And that was it."), paceMs: 1 },
      );
    };
    for (let moment = 0; moment < 24; moment += 3) {
      script();
      const { runId, sessionId, reading } = await start("go");
      await until(
        () => reading.events.length >= moment || /^run_c/.test(reading.events.at(-1)?.type ?? ""),
        "the moment",
      );
      const { run } = await mesh.one.runs.cancelRun({ runId }, callAs(me));
      assert.ok(run?.state === RunState.CANCELLED || run?.state === RunState.COMPLETED);
      assert.equal(await reading.ended, undefined);
      const events = await stored(runId);
      assertWellFormed(events);
      assert.deepEqual(durable(reading.events), events);
      mesh.model.reset();
      await assertUsable(sessionId);
    }
  });

  test("keeps what the database cannot: U+0000 and broken characters from models and tools do not cost the run", async () => {
    mesh.neighbours.executeTool = async () => "a\u0000b";
    const { events, sessionId } = await played(
      turnOf(toolUse("echo", { text: "\u0000" })),
      says("Nothing\u0000 more."),
    );
    const end = events.at(-1)?.payload;
    assert.ok(end?.case === "runCompleted");
    assert.equal(end.value.response, "Nothing\u0000 more.");
    const { messages } = await mesh.one.sessions.listMessages({ sessionId }, callAs(me));
    assert.match(JSON.stringify(messages, noBigint), /Nothing\ufffd more\./);
    await assertUsable(sessionId);
  });

  test("ends as failed at once when the database refuses what belongs to a step", async () => {
    await asOwner(
      mesh,
      "ALTER TABLE agent.messages ADD CONSTRAINT no_poison CHECK (message::text NOT LIKE '%poison%')",
    );
    try {
      const { events, sessionId } = await played(says("poison"));
      assert.deepEqual(
        events.slice(-2).map(({ type }) => type),
        ["item_discarded", "run_failed"],
      );
      assert.equal(failureIn(events).reason, "INTERNAL");
      await assertUsable(sessionId);
    } finally {
      await asOwner(mesh, "ALTER TABLE agent.messages DROP CONSTRAINT no_poison");
    }
  });

  test("stops when another process has taken it, and writes nothing more", async () => {
    const { runId, reading } = await start(LONG);
    await reading.until(() => deltas(reading).length > 3, "text");
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute(
        "UPDATE agent.runs SET owner = 'ins_x', epoch = 2, lease_expires = clock_timestamp() + interval '1 s' WHERE run_id = $1",
        [runId],
      ),
    );
    const before = await stored(runId);
    await until(() => mesh.one.service.liveRuns.size === 0, "the heartbeat to notice");
    await until(() => mesh.model.requests.at(-1)?.abandoned === true, "the model's stream to be broken off");
    assert.deepEqual(await stored(runId), before);
    assert.equal(await reading.ended, undefined, "the reaper ends it when the other one is silent, too");
    assertWellFormed(await stored(runId));
    assert.equal(failureIn(await stored(runId)).reason, "OWNER_LOST");
  });

  test("lives on when the database is away for less than its lease", async () => {
    mesh.model.script({ ...says("one two three four five six"), paceMs: 30 });
    const { runId, reading } = await start("go");
    await reading.until(() => deltas(reading).length > 1, "text");
    mesh.one.loseDatabase();
    await new Promise((resolve) => setTimeout(resolve, 300));
    mesh.one.wake();
    assert.equal(await reading.ended, undefined);
    assert.equal(reading.events.at(-1)?.type, "run_completed");
    assertWellFormed(await stored(runId));
  });

  test("ends as OWNER_LOST, once, when the database is away for longer", async () => {
    const { runId, sessionId, reading } = await start(LONG);
    await reading.until(() => deltas(reading).length > 3, "text");
    mesh.one.loseDatabase();
    await until(() => mesh.one.service.liveRuns.size === 0, "the run to be given up");
    mesh.one.wake();
    const again = read(mesh.one, me, runId);
    assert.equal(await again.ended, undefined);
    assert.equal(failureIn(again.events).reason, "OWNER_LOST");
    assertWellFormed(await stored(runId));
    await assertUsable(sessionId);
    await reading.ended;
  });

  test("survives connections that break at any moment, also in the middle of a commit", async () => {
    mesh.model.reset();
    const turns = () => [
      { content: [{ type: "text" as const, text: "one two three" }, toolUse("echo", { a: 1 })], paceMs: 2 },
      { content: [{ type: "text" as const, text: "four five" }, toolUse("echo", { a: 2 })], paceMs: 2 },
      { ...says("And that was it."), paceMs: 2 },
    ];
    const killer = new pg.Client({ connectionString: mesh.test.superuserUrl });
    await killer.connect();
    try {
      for (let round = 0; round < 4; round++) {
        mesh.model.script(...turns());
        const { runId, sessionId, reading } = await start("go");
        let over = false;
        void reading.ended.then(() => (over = true));
        while (!over) {
          await killer.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
          );
          await new Promise((resolve) => setTimeout(resolve, 5 + round * 10));
        }
        // A run that was given up is ended by the reaper.
        const again = await eventually(async () => {
          const whole = read(mesh.one, me, runId);
          assert.equal(await whole.ended, undefined);
          return whole;
        });
        const events = durable(again.events);
        assertWellFormed(events);
        const seen = durable(reading.events);
        assert.deepEqual(seen, events.slice(0, seen.length), "nothing was shown that is not stored");
        const results = events.filter(({ payload }) => payload.case === "toolCallCompleted");
        assert.equal(new Set(results.map(({ itemId }) => itemId)).size, results.length);
        mesh.model.reset();
        await eventually(() => assertUsable(sessionId));
      }
      assert.equal(new Set(mesh.neighbours.executed).size, mesh.neighbours.executed.length, "no call was made twice");
    } finally {
      await killer.end();
    }
  });
});

/** The first try that succeeds: broken connections may still be in the pool. */
async function eventually<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (tries === 10) throw error;
    }
  }
}

async function asOwner(mesh: AgentMesh, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: mesh.test.superuserUrl });
  await client.connect();
  await client.query(sql).finally(() => client.end());
}

function noBigint(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}
