import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, refusal } from "#platform/testing/service-under-test.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "../testing/tool-service.ts";

describe("todo", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  before(async () => {
    database = await toolDatabase();
    open = await openTools({ database: database.db, values: { tool: { todo_max_items: 5 } } });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  /** A session of a caller; every call is a new one of its run unless it has an id. */
  function session(by: Principal = caller(), sessionId = newId("ses"), endUserId = by.userId ?? "") {
    const runId = newId("run");
    const call = (args: object, callId = newId("call")) =>
      open.execute(by, { tool: "todo", argumentsJson: JSON.stringify(args), sessionId, runId, callId, endUserId });
    return {
      by,
      sessionId,
      call,
      add: async (text: string, callId?: string) => (await call({ action: "add", text }, callId)).value["added"],
      list: async () => (await call({ action: "list" })).value["items"],
      refused: async (args: object) => {
        const { result, text } = await call(args);
        return result.isError ? text : assert.fail(text);
      },
    };
  }

  const entry = (id: number, text: string, done = false) => ({ id, text, done });

  test("adds, lists, completes, removes and clears", async () => {
    const { call, add, list } = session();
    assert.deepEqual(await list(), []);
    assert.deepEqual(await add("milk"), entry(1, "milk"));
    assert.deepEqual(await add("  eggs \n and\u0000 ham "), entry(2, "eggs and ham"));
    await add("tea");
    assert.deepEqual((await call({ action: "complete", id: 2 })).value, { completed: entry(2, "eggs and ham", true) });
    assert.deepEqual((await call({ action: "remove", id: 1 })).value, { removed: entry(1, "milk") });
    assert.deepEqual(await list(), [entry(2, "eggs and ham", true), entry(3, "tea")]);
    assert.deepEqual(await add("jam"), entry(4, "jam"));
    assert.deepEqual((await call({ action: "clear" })).value, { cleared: 3 });
    assert.deepEqual((await call({ action: "clear" })).value, { cleared: 0 });
    assert.deepEqual(await list(), []);
    assert.deepEqual(await add("anew"), entry(1, "anew"));
  });

  test("finds an entry by its text: an equal one first, an open one first", async () => {
    const { call, add, list, refused } = session();
    for (const text of ["Water the plants", "Call Ada", "call ada again", "Call Ada"]) await add(text);
    await call({ action: "complete", text: "the PLANTS" });
    assert.match(await refused({ action: "complete", text: "call ada" }), /^Several entries have that text: 2, 4\./);
    await call({ action: "complete", id: 4 });
    await call({ action: "complete", text: "call ada" });
    await call({ action: "remove", text: "again" });
    assert.deepEqual(await list(), [
      entry(1, "Water the plants", true),
      entry(2, "Call Ada", true),
      entry(4, "Call Ada", true),
    ]);
  });

  test("says what is missing or unknown, and which entries there are", async () => {
    const { add, refused } = session();
    assert.equal(await refused({ action: "add" }), 'Parameter "text" is missing: what is to be added?');
    assert.equal(
      await refused({ action: "add", text: " \u0007 " }),
      'Parameter "text" is missing: what is to be added?',
    );
    assert.equal(await refused({ action: "complete" }), 'Parameter "id" is missing: which entry is meant?');
    assert.equal(await refused({ action: "remove", id: 7 }), "There is no entry 7. The list is empty.");
    await add("milk");
    await add("tea");
    assert.equal(await refused({ action: "remove", id: 7 }), "There is no entry 7. The entries are 1, 2.");
    const unknown = await refused({ action: "complete", text: "rum" });
    assert.equal(unknown, "There is no entry with that text. The entries are 1, 2.");
    assert.match(
      await refused({ action: "add", text: "x".repeat(301) }),
      /"text" must NOT have more than 300 characters/,
    );
  });

  test("holds a limited number of entries", async () => {
    const { add, call, refused } = session();
    for (const text of ["a", "b", "c", "d", "e"]) await add(text);
    assert.match(await refused({ action: "add", text: "f" }), /^The list is full: it holds 5 entries\./);
    await call({ action: "remove", id: 1 });
    assert.deepEqual(await add("f"), entry(6, "f"));
  });

  test("belongs to a session", async () => {
    const { result, text } = await open.execute(caller(), { tool: "todo", argumentsJson: '{"action":"list"}' });
    assert.deepEqual([result.isError, text], [true, "A to-do list belongs to a session, and this call has none."]);
  });

  test("a repeated call is not carried out again, and answers the same", async () => {
    const { add, call, list } = session();
    const first = await add("milk", "call_1");
    assert.deepEqual(await add("milk", "call_1"), first);
    assert.deepEqual(await list(), [entry(1, "milk")]);
    const removed = await call({ action: "remove", id: 1 }, "call_2");
    assert.deepEqual((await call({ action: "remove", id: 1 }, "call_2")).value, removed.value);
    const other = await call({ action: "add", text: "eggs" }, "call_1");
    assert.deepEqual([other.result.isError, other.text], [true, 'The tool "todo" failed.']);
    assert.deepEqual(await list(), []);
  });

  test("a call that was refused may be repeated when it can succeed", async () => {
    const { add, call } = session();
    assert.equal((await call({ action: "complete", id: 1 }, "call_1")).result.isError, true);
    await add("milk");
    assert.equal((await call({ action: "complete", id: 1 }, "call_1")).result.isError, false);
  });

  test("calls that come at the same time are all carried out, one after another, each once", async () => {
    await using roomy = await openTools({ database: database.db });
    const [by, ids] = [caller(), { sessionId: newId("ses"), runId: newId("run") }];
    const texts = Array.from({ length: 24 }, (_, i) => `entry ${i % 20}`);
    const add = (text: string) =>
      roomy.execute(by, { tool: "todo", argumentsJson: JSON.stringify({ action: "add", text }), callId: text, ...ids });
    const added = await Promise.all(texts.map(async (text) => (await add(text)).value["added"]));
    assert.deepEqual(added.slice(20), added.slice(0, 4));
    const { value } = await roomy.execute(by, { tool: "todo", argumentsJson: '{"action":"list"}', ...ids });
    const items = value["items"] as { id: number; text: string }[];
    assert.deepEqual(
      items.map(({ id }) => id),
      Array.from({ length: 20 }, (_, i) => i + 1),
    );
    assert.deepEqual(items.map(({ text }) => text).sort(), texts.slice(0, 20).sort());
  });

  test("lists of other sessions and of other tenants are out of reach, even under the same session id", async () => {
    const mine = session();
    await mine.add("secret plan");
    const mySecond = session(mine.by);
    const theirs = session(caller(), mine.sessionId);
    for (const other of [mySecond, theirs]) {
      assert.deepEqual(await other.list(), []);
      assert.match(await other.refused({ action: "complete", id: 1 }), /^There is no entry 1\. The list is empty\.$/);
      assert.deepEqual((await other.call({ action: "clear" })).value, { cleared: 0 });
    }
    assert.deepEqual(await theirs.add("other"), entry(1, "other"));
    assert.deepEqual(await mine.list(), [entry(1, "secret plan")]);
  });

  test("a list is its user's own; the open entries are told to who may see the session", async () => {
    const tenant = caller();
    const bound = (userId: string) => caller({ tenantId: tenant.tenantId, userId });
    const [ada, bob] = [bound("ada"), bound("bob")];
    const hers = session(ada);
    for (const text of ["one", "two", "three"]) await hers.add(text);
    await hers.call({ action: "complete", id: 2 });
    const his = session(bob, hers.sessionId);
    assert.deepEqual(await his.list(), []);
    assert.deepEqual((await his.call({ action: "clear" })).value, { cleared: 0 });
    const machine = session(tenant, hers.sessionId, "ada");
    assert.deepEqual(await machine.list(), await hers.list());
    const { sessionId } = hers;
    const told = async (by: Principal) => (await open.execution.listOpenTodos({ sessionId }, callAs(by))).todos;
    assert.deepEqual(
      [await told(ada), await told(tenant)],
      [
        ["one", "three"],
        ["one", "three"],
      ],
    );
    for (const other of [bob, caller(), caller({ userId: "ada" })]) assert.deepEqual(await told(other), []);
    const nowhere = await open.execution.listOpenTodos({ sessionId: newId("ses") }, callAs(tenant));
    assert.deepEqual(nowhere.todos, []);
    const none = open.execution.listOpenTodos({ sessionId: "" }, callAs(tenant));
    assert.equal((await refusal(none)).reason, "FIELD_INVALID");
  });

  test("a list outlives the process that kept it", async () => {
    const { by, sessionId, add } = session();
    await add("milk");
    await using other = await openTools({ database: database.db });
    const again = await other.execute(by, { tool: "todo", argumentsJson: '{"action":"list"}', sessionId });
    assert.deepEqual(again.value, { items: [entry(1, "milk")] });
  });
});
