import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { DeadLetter } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import type { Bus } from "#platform/bus/bus.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection } from "#platform/rpc/test-mesh.contract.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { workSubject } from "../runs/run-subject.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { begun, eventually, plantQueued, states } from "../testing/queued.ts";
import { assertWellFormed } from "../testing/watching.ts";
import { workMessage } from "./enqueue.ts";

const PER_TENANT = 5;
const QUEUE = { sweep_interval: "100ms", orphan_after: "2s", max_attempts: 2, dispatched_per_tenant: PER_TENANT };

const range = (length: number) => Array.from({ length }, (_, i) => i);

/** A bus for each caller, and the way to let go of all. */
export interface Buses extends AsyncDisposable {
  make(): Bus;
}

/** What the queue of runs promises on every bus, with two replicas that take from it. */
export function describeQueue(name: string, open: () => Promise<Buses | undefined>, skip: string | false): void {
  describe(`the queue of runs on ${name}`, { skip: skipWithoutPostgres() || skip }, () => {
    let buses: Buses | undefined;
    let mesh: AgentMesh;
    let me: Principal;
    before(async () => {
      buses = await open();
      const made = buses;
      mesh = await openAgentMesh({
        replicas: 2,
        // What runs here is much at a time, and no test of leases.
        agent: { lease: "20s", heartbeat: "1s", pool: { runs: 20 }, queue: QUEUE },
        ...(made !== undefined && { bus: () => made.make() }),
      });
    });
    after(async () => {
      await mesh[Symbol.asyncDispose]();
      await buses?.[Symbol.asyncDispose]();
    });
    beforeEach(() => {
      me = principalOf(newId("ten"), TENANT_SCOPES);
      mesh.model.reset();
      mesh.neighbours.resolved = {};
      mesh.neighbours.brokenAgentIds.clear();
    });

    const room = (runs: bigint) => {
      mesh.neighbours.resolved = { limits: { maxConcurrentSessions: runs } };
    };
    const queue = async (agentId = "") => {
      const { run } = await mesh.one.runs.startRun({ message: "go", background: true, agentId }, callAs(me));
      return run?.runId ?? "";
    };
    const letters = async (who = me, openOnly = false): Promise<DeadLetter[]> => {
      const all: DeadLetter[] = [];
      for (let pageToken = ""; ; ) {
        const page = await mesh.two.runs.listDeadLetters({ pageSize: 7, pageToken, openOnly }, callAs(who));
        all.push(...page.deadLetters);
        pageToken = page.nextPageToken;
        if (pageToken === "") return all;
      }
    };
    const over = (count: number) =>
      eventually(
        async () => {
          const { 4: completed = 0, 5: failed = 0, 6: cancelled = 0 } = await states(mesh, me.tenantId);
          return completed + failed + cancelled === count;
        },
        `${count} runs to end`,
        200_000,
      );
    const idle = async (tenantId: string) => {
      const [left] = await mesh.db.tenant(tenantId, (tx) =>
        tx.query(
          "SELECT (SELECT count(*)::int FROM agent.queued_runs) AS queued, (SELECT count(*)::int FROM agent.sessions WHERE active_run_id IS NOT NULL) AS held",
        ),
      );
      assert.deepEqual(left, { queued: 0, held: 0 });
    };

    test("a hundred poison messages among a hundred good ones: exactly those are dead, the others are done", {
      timeout: 240_000,
    }, async () => {
      room(0n);
      mesh.neighbours.agentIds.add("agt_poison");
      const bus = buses?.make();
      const good: string[] = [];
      const poison: string[] = [];
      const refuse = async (i: number) => {
        // Bytes that are no message, and the message of a run under another's subject.
        const subject = workSubject(me.tenantId, newId("run"));
        const data = i % 2 === 0 ? randomBytes(20) : workMessage(newId("ten"), good.at(-1) ?? "");
        await (bus ?? mesh.bus).publish({ subject, id: newId("evt"), data });
      };
      for (let i = 0; i < 10; i++) {
        const [ones, others] = [range(10), range(5)];
        const queued = [...ones.map(() => queue()), ...others.map(() => queue("agt_poison"))];
        const [ids] = await Promise.all([Promise.all(queued), ...others.map(refuse)]);
        good.push(...ids.slice(0, ones.length));
        poison.push(...ids.slice(ones.length));
      }
      mesh.neighbours.brokenAgentIds.add("agt_poison");
      room(1_000n);
      await over(150);
      assert.deepEqual(await states(mesh, me.tenantId), { 4: 100, 5: 50 });
      const dead = await letters();
      assert.deepEqual(dead.map(({ runId }) => runId).toSorted(), poison.toSorted());
      for (const { reason, attempts, message, subject, runId } of dead) {
        assert.deepEqual([reason, attempts, subject], ["RUN_POISONED", 2, workSubject(me.tenantId, runId)]);
        assert.doesNotMatch(message, /hunter2/);
      }
      assert.equal(mesh.model.requests.length, 100, "each good one was done once");
      const told = [mesh.one, mesh.two].flatMap(({ logged }) =>
        logged.filter(({ event }) => event === "agent.queue.message_refused"),
      );
      assert.equal(told.length, 50);
      await bus?.close();
      await idle(me.tenantId);
    });

    test("a dead letter is put back once, as a new run for whom it was before, and stays in the list", async () => {
      room(0n);
      mesh.neighbours.agentIds.add("agt_poison");
      const runId = await queue("agt_poison");
      mesh.neighbours.brokenAgentIds.add("agt_poison");
      room(10n);
      await over(1);
      const stranger = principalOf(newId("ten"), TENANT_SCOPES);
      const otherUser = principalOf(me.tenantId, TENANT_SCOPES, { userId: "usr_other" });
      for (const who of [stranger, otherUser]) {
        assert.equal(
          reasonOf(await rejection(mesh.one.runs.redriveDeadLetter({ runId }, callAs(who)))),
          "RESOURCE_NOT_FOUND",
        );
      }
      assert.deepEqual(await letters(stranger), []);
      mesh.neighbours.brokenAgentIds.clear();
      const requestId = newId("req");
      const answers = await Promise.all(
        [requestId, requestId, "", ""].map((key) =>
          mesh.one.runs.redriveDeadLetter({ runId, requestId: key }, callAs(me)),
        ),
      );
      const runs = new Set(answers.map(({ run }) => run?.runId));
      assert.equal(runs.size, 1);
      const again = answers[0]?.run?.runId ?? "";
      assert.notEqual(again, runId);
      await over(2);
      const { run } = await mesh.two.runs.getRun({ runId: again }, callAs(me));
      assert.deepEqual([run?.state, run?.retryOf, run?.background], [RunState.COMPLETED, runId, true]);
      const [letter] = await letters();
      assert.equal(letter?.redrivenByRunId, again);
      assert.deepEqual(await letters(me, true), []);
      const later = await mesh.one.runs.redriveDeadLetter({ runId }, callAs(me));
      assert.equal(later.run?.runId, again);
      assert.equal(
        reasonOf(await rejection(mesh.one.runs.redriveDeadLetter({ runId: again }, callAs(me)))),
        "RESOURCE_NOT_FOUND",
      );
    });

    test("a tenant with five hundred queued runs does not stand before another's single one", async () => {
      room(0n);
      const other = principalOf(newId("ten"), TENANT_SCOPES);
      const many = await plantQueued(mesh, me, { count: 500 });
      const [single] = await plantQueued(mesh, other, {});
      room(4n);
      await eventually(async () => (await begun(mesh, other.tenantId)).length === 1, "the single one to begin");
      const [one] = await begun(mesh, other.tenantId);
      assert.equal(one?.runId, single?.runId);
      const before = (await begun(mesh, me.tenantId)).filter(({ at }) => at < (one?.at ?? 0));
      assert.ok(before.length <= 4 * PER_TENANT, `${before.length} of the many began before`);
      await eventually(async () => (await begun(mesh, me.tenantId)).length > 30, "some of the many to begin");
      const order = (await begun(mesh, me.tenantId)).map(({ runId }) => many.findIndex((run) => run.runId === runId));
      assert.ok(Math.max(...order.slice(0, 20)) < 20 + 16 * PER_TENANT, `the oldest first: ${order}`);
      room(0n);
      await mesh.db.tenant(me.tenantId, (tx) =>
        tx.execute("UPDATE agent.queued_runs SET due_at = 'infinity' WHERE due_at IS NOT NULL"),
      );
    });

    test("a run whose message is lost is dispatched again", async () => {
      const [run] = await plantQueued(mesh, me, { dueInMs: 300 });
      await over(1);
      const { run: done } = await mesh.one.runs.getRun({ runId: run?.runId ?? "" }, callAs(me));
      assert.equal(done?.state, RunState.COMPLETED);
    });

    test("runs of one session are begun in their order, one at a time, and by nobody else's message", async () => {
      const { run } = await mesh.one.runs.startRun({ message: "[[slow 30]] [[deltas 20]] first" }, callAs(me));
      const sessionId = run?.sessionId ?? "";
      const queued = await plantQueued(mesh, me, { count: 5, sessionId });
      await over(6);
      const order = (await begun(mesh, me.tenantId)).map(({ runId }) => runId);
      assert.deepEqual(order, [run?.runId, ...queued.map(({ runId }) => runId)]);
      const { messages } = await mesh.one.sessions.listMessages({ sessionId }, callAs(me));
      assert.equal(messages.length, 12);
      await idle(me.tenantId);
    });

    test("cancelled at the moment when it begins, a run has one end, and its session is free", async () => {
      const planted = await plantQueued(mesh, me, { count: 30 });
      await Promise.all(
        planted.map(async ({ runId }, i) => {
          await new Promise((resolve) => setTimeout(resolve, i * 8));
          await mesh.replicas[i % 2]?.runs.cancelRun({ runId }, callAs(me));
        }),
      );
      await over(30);
      for (const { runId } of planted) {
        const { events } = await mesh.one.runs.listRunEvents({ runId, pageSize: 200 }, callAs(me));
        if (events[0]?.type !== "run_cancelled") assertWellFormed(events);
        else assert.equal(events.length, 1);
      }
      await idle(me.tenantId);
    });

    test("what is away does not count: the run waits, and is done when it is back", async () => {
      room(0n);
      await queue();
      mesh.neighbours.configDown = true;
      room(10n);
      // More often than it may fail.
      const from = mesh.neighbours.refusedWhileDown;
      await eventually(async () => mesh.neighbours.refusedWhileDown >= from + 3, "it to be tried again and again");
      assert.deepEqual(await states(mesh, me.tenantId), { 1: 1 });
      mesh.neighbours.configDown = false;
      await over(1);
      assert.deepEqual(await states(mesh, me.tenantId), { 4: 1 });
    });
  });
}
