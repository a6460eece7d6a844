import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { says } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";

const LONG = "[[slow 20]] [[deltas 2000]] tell me a story";

describe("how many runs there are at the same time", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    const pool = { runs: 3, waiting: 2, waiting_per_tenant: 1, wait: "1500ms" };
    mesh = await openAgentMesh({ replicas: 2, agent: { pool } });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.resolved = { limits: { maxConcurrentSessions: 1n } };
  });

  const start = (message: string, requestId = "", who = me, replica = mesh.one) =>
    replica.runs.startRun({ message, requestId }, callAs(who));
  const cancel = (runId = "") => mesh.one.runs.cancelRun({ runId }, callAs(me));
  const idle = () =>
    until(
      () => mesh.replicas.every(({ service: { pool } }) => pool.use.working === 0 && pool.use.waiting === 0),
      "every permit to be given back",
    );
  const refused = (error: unknown) => {
    assert.ok(error instanceof ConnectError);
    assert.deepEqual([error.code, reasonOf(error)], [Code.ResourceExhausted, "CONCURRENCY_LIMIT"]);
    assert.equal(error.findDetails(RetryInfoSchema).length, 1, "it says when to come again");
    return true;
  };

  test("a tenant's next run begins, on whatever replica, when the one before it has ended; others go on", async () => {
    const { run } = await start(LONG);
    const second = start("short", "", me, mesh.two);
    await until(() => mesh.two.service.pool.use.waiting === 1, "the second run to wait");
    const other = await mesh.two.chat.chat({ message: "hello" }, callAs(principalOf(newId("ten"), TENANT_SCOPES)));
    assert.equal(other.state, RunState.COMPLETED);
    await cancel(run?.runId);
    assert.notEqual((await second).run?.runId, run?.runId);
    await idle();
  });

  test("who waits too long, or finds no room to wait, is refused and told when to come again; nothing is written", async () => {
    const { run } = await start(LONG);
    const late = start("one");
    await until(() => mesh.one.service.pool.use.waiting === 1, "one to wait");
    await assert.rejects(start("two"), refused);
    await assert.rejects(late, refused);
    const { runs } = await mesh.one.runs.listRuns({}, callAs(me));
    assert.equal(runs.length, 1);
    await cancel(run?.runId);
    await idle();
  });

  test("a repeated request attaches to its run at once, however many wait", async () => {
    const { run } = await start(LONG, "again");
    const startedAt = performance.now();
    const repeated = await start(LONG, "again");
    assert.equal(repeated.run?.runId, run?.runId);
    assert.ok(performance.now() - startedAt < 1_400, "it did not wait for a permit");
    await cancel(run?.runId);
    await idle();
  });

  test("a caller that leaves while waiting, and a run that could not begin, keep no permit", async () => {
    const { run } = await start(LONG);
    const leaving = new AbortController();
    const gone = mesh.one.runs.startRun({ message: "one" }, callAs(me, { signal: leaving.signal }));
    await until(() => mesh.one.service.pool.use.waiting === 1, "it to wait");
    leaving.abort();
    await assert.rejects(gone);
    await cancel(run?.runId);
    await assert.rejects(
      start("x", "", me).then(() => mesh.one.runs.startRun({ message: "y", sessionId: newId("ses") }, callAs(me))),
    );
    await idle();
  });

  test("a run that is taken up counts, and gives its permit back when it has ended", async () => {
    mesh.model.script({ ...says("one two three four five six"), paceMs: 40 }, says("Done."));
    const { run } = await start("go");
    mesh.one.kill();
    await until(() => mesh.two.service.pool.use.working === 1, "the run to be taken up");
    mesh.one.wake();
    await until(() => mesh.two.service.liveRuns.size === 0, "its end");
    assert.equal((await mesh.two.runs.getRun({ runId: run?.runId ?? "" }, callAs(me))).run?.state, RunState.COMPLETED);
    await idle();
  });
});
