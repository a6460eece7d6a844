import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { LeaseLost } from "../errors.ts";
import { claimDeleted, eraseRest, eraseSome } from "../store/erasure-store.ts";
import { ledgerOf } from "../store/ledger-store.ts";
import * as messages from "../store/message-store.ts";
import * as runStore from "../store/run-store.ts";
import { writeRun } from "../store/run-writes.ts";
import * as sessionStore from "../store/session-store.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { type Reading, read } from "../testing/watching.ts";

/** Ids that a probe puts into every field that takes one. */
interface Ids {
  runId: string;
  sessionId: string;
  externalId: string;
  agentId: string;
  pageToken: string;
  requestId: string;
}

/** Every RPC by every id that it takes: what is done with the id, as somebody. */
const PROBES: Record<string, (mesh: AgentMesh, who: Principal, ids: Ids) => Promise<unknown>> = {
  "Chat session": ({ one }, who, { sessionId }) => one.chat.chat({ message: "x", sessionId }, callAs(who)),
  "Chat agent": ({ one }, who, { agentId }) => one.chat.chat({ message: "x", agentId }, callAs(who)),
  "ChatStream session": ({ one }, who, { sessionId }) =>
    drained(one.chat.chatStream({ message: "x", sessionId }, callAs(who))),
  "StartRun session": ({ one }, who, { sessionId }) => one.runs.startRun({ message: "x", sessionId }, callAs(who)),
  GetRun: ({ one }, who, { runId }) => one.runs.getRun({ runId }, callAs(who)),
  CancelRun: ({ one }, who, { runId }) => one.runs.cancelRun({ runId }, callAs(who)),
  ListRunEvents: ({ one }, who, { runId }) => one.runs.listRunEvents({ runId }, callAs(who)),
  StreamRunEvents: ({ one }, who, { runId }) => finished(read(one, who, runId)),
  "StreamRunEvents resumed": ({ one }, who, { runId }) => finished(read(one, who, runId, { afterSeq: 3n })),
  "StreamRunEvents live": ({ one }, who, { runId }) => finished(read(one, who, runId, { liveOnly: true })),
  GetSession: ({ one }, who, { sessionId }) => one.sessions.getSession({ sessionId }, callAs(who)),
  "GetSession by UUID": ({ one }, who, { externalId }) =>
    one.sessions.getSession({ sessionId: externalId }, callAs(who)),
  UpdateSession: ({ one }, who, { sessionId }) =>
    one.sessions.updateSession({ session: { sessionId, title: "stolen" } }, callAs(who)),
  "UpdateSession by UUID": ({ one }, who, { externalId }) =>
    one.sessions.updateSession({ session: { sessionId: externalId, title: "stolen" } }, callAs(who)),
  DeleteSession: ({ one }, who, { sessionId }) => one.sessions.deleteSession({ sessionId }, callAs(who)),
  "DeleteSession by UUID": ({ one }, who, { externalId }) =>
    one.sessions.deleteSession({ sessionId: externalId }, callAs(who)),
  "DeleteSession again": ({ one }, who, { sessionId, requestId }) =>
    one.sessions.deleteSession({ sessionId, requestId }, callAs(who)),
  ListMessages: ({ one }, who, { sessionId }) => one.sessions.listMessages({ sessionId }, callAs(who)),
  "ListMessages by UUID": ({ one }, who, { externalId }) =>
    one.sessions.listMessages({ sessionId: externalId }, callAs(who)),
};

describe("what belongs to others", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  const tenantId = newId("ten");
  const bound = TENANT_SCOPES.filter((scope) => scope !== "sessions:read_all");
  const owner = principalOf(tenantId, bound, { userId: "usr_owner" });
  const colleague = principalOf(tenantId, bound, { userId: "usr_colleague" });
  const stranger = principalOf(newId("ten"), TENANT_SCOPES);
  let theirs: Ids;
  let before_: unknown;

  before(async () => {
    mesh = await openAgentMesh();
    const externalId = randomUUID();
    const requestId = randomUUID();
    const { runId } = await mesh.one.chat.chat({ message: "secret", sessionId: externalId, requestId }, callAs(owner));
    await mesh.one.chat.chat({ message: "another", sessionId: externalId }, callAs(owner));
    const { session } = await mesh.one.sessions.getSession({ sessionId: externalId }, callAs(owner));
    const { nextPageToken } = await mesh.one.runs.listRuns({ pageSize: 1 }, callAs(owner));
    const sessionId = session?.sessionId ?? "";
    theirs = { runId, sessionId, externalId, agentId: "agt_1", pageToken: nextPageToken, requestId };
    before_ = await everything();
  });
  after(() => mesh[Symbol.asyncDispose]());

  /** All rows of the owner's tenant but for the audit trail. */
  const everything = () =>
    mesh.db.tenant(tenantId, async (tx) => {
      const tables = ["sessions", "messages", "runs", "run_events"];
      return Promise.all(tables.map((table) => tx.query(`SELECT * FROM agent.${table} ORDER BY 1, 2, 3`)));
    });

  function missing(): Ids {
    return {
      runId: newId("run"),
      sessionId: newId("ses"),
      externalId: randomUUID(),
      agentId: "agt_2",
      pageToken: theirs.pageToken,
      requestId: randomUUID(),
    };
  }

  for (const [name, probe] of Object.entries(PROBES)) {
    test(`is as good as missing: ${name}`, async () => {
      for (const who of [stranger, colleague]) {
        const absent = await refusal(probe(mesh, who, missing()));
        assert.equal(absent.reason, "RESOURCE_NOT_FOUND");
        assert.deepEqual(await refusal(probe(mesh, who, theirs)), absent);
      }
      assert.deepEqual(await everything(), before_, "nothing was changed");
    });
  }

  test("is in nobody else's lists, by no filter and no page token", async () => {
    const { one } = mesh;
    for (const who of [stranger, colleague]) {
      const as = callAs(who);
      for (const filter of [
        {},
        { sessionId: theirs.sessionId },
        { sessionId: theirs.externalId },
        { agentId: "agt_default" },
      ]) {
        assert.deepEqual((await one.runs.listRuns(filter, as)).runs, []);
      }
      for (const filter of [{}, { endUserId: "usr_owner" }, { agentId: "" }]) {
        assert.deepEqual((await one.sessions.listSessions(filter, as)).sessions, []);
      }
    }
    const { pageToken } = theirs;
    for (const who of [stranger, colleague]) {
      assert.equal((await refusal(one.runs.listRuns({ pageToken }, callAs(who)))).reason, "PAGE_TOKEN_INVALID");
    }
  });

  test("is not answered for by another's key for repeats", async () => {
    const request = { message: "secret", sessionId: theirs.externalId, requestId: theirs.requestId };
    for (const who of [stranger, colleague]) {
      const { runId } = await mesh.one.chat.chat(request, callAs(who));
      assert.notEqual(runId, theirs.runId);
    }
    const { runId } = await mesh.one.chat.chat(request, callAs(owner));
    assert.equal(runId, theirs.runId);
  });

  test("may be read, and not changed, by who may read all of the tenant's", async () => {
    const reader = principalOf(tenantId, TENANT_SCOPES, { userId: "usr_reader" });
    const { runId, sessionId } = theirs;
    assert.equal((await mesh.one.runs.getRun({ runId }, callAs(reader))).run?.runId, runId);
    assert.equal((await mesh.one.sessions.listMessages({ sessionId }, callAs(reader))).messages.length, 4);
    assert.equal(await read(mesh.one, reader, runId).ended, undefined);
    for (const name of ["Chat session", "StartRun session", "CancelRun", "UpdateSession", "DeleteSession"]) {
      const refused = await refusal((PROBES[name] ?? assert.fail())(mesh, reader, theirs));
      assert.equal(refused.reason, "RESOURCE_NOT_FOUND", name);
    }
  });

  test("is kept by the database alone, should the service ever ask with the wrong tenant", async () => {
    const { runId, sessionId, externalId } = theirs;
    const wrong = newId("ten");
    const page = { limit: 10, after: undefined };
    const found = await mesh.db.tenant(wrong, async (tx) => [
      await runStore.runById(tx, runId),
      await runStore.runById(tx, runId, true),
      await ledgerOf(tx, runId),
      await tx.query("SELECT * FROM agent.model_calls WHERE run_id = $1", [runId]),
      await tx.query("SELECT * FROM agent.compactions WHERE session_id = $1", [sessionId]),
      await runStore.eventsAfter(tx, runId, 0n, 10),
      await sessionStore.sessionById(tx, sessionId),
      await sessionStore.sessionByExternalId(tx, externalId, undefined),
      await messages.listMessages(tx, sessionId, { limit: 10, from: 0 }),
      await runStore.listRuns(tx, noFilter, page),
      await sessionStore.listSessions(tx, { endUserId: undefined, agentId: undefined }, { ...page, skip: 0 }),
      // Even where a statement forgets the tenant.
      await tx.query("SELECT * FROM agent.runs WHERE run_id = $1", [runId]),
      await tx.query("SELECT * FROM agent.messages WHERE session_id = $1", [sessionId]),
      await tx.query("SELECT * FROM agent.run_events WHERE run_id = $1", [runId]),
      await tx.query("UPDATE agent.sessions SET title = 'stolen' WHERE session_id = $1 RETURNING 1", [sessionId]),
      await tx.query("DELETE FROM agent.run_events WHERE run_id = $1 RETURNING 1", [runId]),
    ]);
    for (const one of found) assert.ok(one === undefined || (one as unknown[]).length === 0);
    await mesh.db.tenant(wrong, async (tx) => {
      await sessionStore.markDeleted(tx, sessionId);
      assert.equal(await claimDeleted(tx, sessionId), false);
      assert.equal(await eraseSome(tx, sessionId), true);
      await eraseRest(tx, sessionId);
    });
    const insert = mesh.db.tenant(wrong, (tx) =>
      tx.execute("INSERT INTO agent.run_events (tenant_id, run_id, seq, type, event) VALUES ($1, $2, 99, 'x', '')", [
        tenantId,
        runId,
      ]),
    );
    await assert.rejects(insert, /row-level security/);
    const ours = await mesh.db.tenant(tenantId, (tx) => runStore.runById(tx, runId));
    const fence = { tenantId: wrong, runId, owner: ours?.owner ?? "", epoch: ours?.epoch ?? 0 };
    const event = { seq: 99n, type: "x", event: new Uint8Array() };
    const write = mesh.db.tenant(wrong, (tx) => writeRun(tx, fence, { events: [event], lastSeq: 99n }, "last"));
    await assert.rejects(write, LeaseLost);
    assert.equal(ours?.run_id, runId);
  });
});

const noFilter: runStore.RunFilter = {
  endUserId: undefined,
  sessionId: undefined,
  agentId: undefined,
  state: undefined,
  createdAfter: undefined,
  createdBefore: undefined,
};

async function drained(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

async function finished(reading: Reading): Promise<void> {
  const error = await reading.ended;
  if (error !== undefined) throw error;
}
