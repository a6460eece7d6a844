import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { findText } from "#platform/testing/find-text.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

/** Outbox, bus and consumer take part of a second, on a busy machine more. */
const WITHIN_MS = 15_000;

describeMesh("a deleted session", (mesh) => {
  const rest = () => new RestClient(mesh().baseUrl, mesh().adminKey);
  const done = async (method: string, path: string, body?: object) => {
    const answer = await rest().call(method, path, body);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body;
  };
  const found = (text: string) => findText(mesh().query, text);

  /** A conversation that says the canary wherever something can be said. */
  async function talk(canary: string): Promise<{ session_id: string; run_id: string }> {
    const list = toolUse("todo", { action: "add", text: canary });
    mesh().model.script(turnOf({ type: "text", text: canary }, list), says(`${canary}, noted.`));
    const chat = { message: `Note ${canary}.`, session_id: randomUUID(), end_user_id: "ada" };
    const { run_id } = await done("POST", "/api/v1/chat", chat);
    const { session_id } = await done("GET", `/api/v1/sessions/${chat.session_id}`);
    await done("PATCH", `/api/v1/sessions/${session_id}`, { title: canary, labels: { about: canary } });
    return { session_id, run_id };
  }

  test("leaves nothing of what was said in any table of any service, and other sessions as they were", async () => {
    const { session_id } = await talk("canary-one");
    const kept = await talk("canary-two");
    const everywhere = [
      "agent.messages",
      "agent.run_events",
      "agent.sessions",
      "tool.session_todos",
      "tool.tool_calls",
    ];
    for (const table of everywhere) assert.ok((await found("canary-one")).includes(table), table);
    const before = await found("canary-two");
    await done("DELETE", `/api/v1/sessions/${session_id}`);
    assert.equal((await rest().call("GET", `/api/v1/sessions/${session_id}`)).status, 404);
    const until = performance.now() + WITHIN_MS;
    // What the tool service erases last.
    const left = "SELECT FROM tool.tool_calls WHERE session_id = $1 AND arguments <> 'null'";
    while ((await mesh().query(left, [session_id])).length > 0 && performance.now() < until) await sleep(100);
    assert.deepEqual(await found("canary-one"), []);
    // Who did what and what it cost is kept, by ids; a message on its way names the session.
    const ids = [
      "agent.audit",
      "agent.model_calls",
      "agent.outbox",
      "tool.audit",
      "tool.erased_sessions",
      "tool.tool_calls",
    ];
    assert.deepEqual(await found(session_id), ids);
    assert.deepEqual(await found("canary-two"), before);
    const { messages } = await done("GET", `/api/v1/sessions/${kept.session_id}/messages`);
    assert.equal(messages.length, 4);
    assert.equal((await done("GET", `/api/v1/runs/${kept.run_id}`)).state, "RUN_STATE_COMPLETED");
  });

  test("and events that are past their time are shown as a snapshot, over server-sent events too", async () => {
    const { run_id } = await talk("snapshot");
    const events = async () => (await mesh().query("SELECT FROM agent.run_events WHERE run_id = $1", [run_id])).length;
    assert.ok((await events()) > 1);
    const [row] = await mesh().query("UPDATE agent.runs SET expire_time = now() WHERE run_id = $1 RETURNING 1 AS one", [
      run_id,
    ]);
    assert.deepEqual(row, { one: 1 });
    const until = performance.now() + WITHIN_MS;
    while ((await events()) > 1 && performance.now() < until) await sleep(100);
    const shown = [];
    for await (const event of rest().stream("GET", `/api/v1/runs/${run_id}/events:stream`)) shown.push(event);
    assert.deepEqual(
      shown.map(({ event }) => event),
      ["snapshot", "event", "caught_up"],
    );
    const [snapshot, last] = shown.map(({ data }) => JSON.parse(data));
    assert.equal(snapshot.snapshot.run.run_id, run_id);
    assert.equal(snapshot.snapshot.messages.length, 4);
    assert.equal(last.event.prev_seq, snapshot.snapshot.as_of_seq);
    assert.equal(last.event.type, "run_completed");
    const { body } = await rest().call("GET", `/api/v1/runs/${run_id}/events`);
    assert.deepEqual([body.snapshot.as_of_seq, body.events.length], [snapshot.snapshot.as_of_seq, 1]);
  });
});
