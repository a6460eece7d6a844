import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { errorOf, RestClient } from "./rest-client.ts";

const LOOKUP = {
  name: "lookup",
  description: "Looks something up on the caller's machine.",
  input_schema_json: JSON.stringify({
    type: "object",
    properties: { q: { type: "string" } },
    required: ["q"],
    additionalProperties: false,
  }),
};
const OVER_WITHIN_MS = 10_000;

describeMesh("turns and sessions that a caller goes on with over REST", (mesh) => {
  const rest = () => new RestClient(mesh().baseUrl, mesh().adminKey);

  /** Through another gateway and replica, where there is one. */
  async function elsewhere(): Promise<RestClient> {
    const { mode, adminKey } = mesh();
    return mode === "distributed" ? new RestClient((await mesh().gatewayTo("agent-2")).baseUrl, adminKey) : rest();
  }

  async function done(method: string, path: string, body?: object, by = rest()) {
    const answer = await by.call(method, path, body);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body;
  }

  async function over(runId: string) {
    for (const end = performance.now() + OVER_WITHIN_MS; ; await sleep(50)) {
      const run = await done("GET", `/api/v1/runs/${runId}`);
      if (run.state === "RUN_STATE_COMPLETED") return run;
      assert.ok(performance.now() < end, JSON.stringify(run));
    }
  }

  /** What a session says, by role. */
  async function said(sessionId: string): Promise<string[]> {
    const { messages } = await done("GET", `/api/v1/sessions/${sessionId}/messages`);
    return messages.map(
      ({ role, parts = [] }: { role: string; parts?: { text?: { text: string } }[] }) =>
        `${role.replace("MESSAGE_ROLE_", "").toLowerCase()}: ${parts.map(({ text }) => text?.text ?? "").join("")}`,
    );
  }

  test("a tool that the caller has executes there; the run waits for its result, and takes it once", async () => {
    mesh().model.reset();
    mesh().model.script(turnOf(toolUse("lookup", { q: "weather" })), says("It rains."));
    const waits = await done("POST", "/api/v1/chat", { message: "look it up", client_tools: [LOOKUP] });
    assert.equal(waits.state, "RUN_STATE_SUSPENDED");
    const { awaiting } = await done("GET", `/api/v1/runs/${waits.run_id}`);
    assert.deepEqual(
      awaiting.map(({ kind, tool }: { kind: string; tool: string }) => [kind, tool]),
      [["AWAITED_KIND_TOOL_RESULTS", "lookup"]],
    );
    const path = `/api/v1/runs/${waits.run_id}:submitToolResults`;
    const results = [{ call_id: awaiting[0].call_id, content: [{ text: { text: "rain, 9 degrees" } }] }];
    const unknown = await rest().call("POST", path, { results: [{ ...results[0], call_id: "call_other" }] });
    assert.equal(unknown.status, 400, JSON.stringify(unknown.body));
    const request_id = randomUUID();
    const other = await elsewhere();
    const answers = await Promise.all([rest(), other].map((by) => done("POST", path, { results, request_id }, by)));
    assert.equal(answers[0].run.run_id, waits.run_id);
    assert.equal((await over(waits.run_id)).response, "It rains.");
    assert.equal(mesh().model.requests.length, 2, "the result was taken once");
    assert.match(JSON.stringify(mesh().model.requests.at(-1)?.body.messages), /rain, 9 degrees/);
    await done("POST", path, { results });
    const otherwise = { results: [{ ...results[0], content: [{ text: { text: "snow" } }] }] };
    const late = await rest().call("POST", path, otherwise);
    assert.deepEqual([late.status, errorOf(late).reason], [400, "FIELD_CONFLICT"]);
  });

  test("a turn that is at work is told more, by its run and by its session", async () => {
    const other = await elsewhere();
    mesh().model.reset();
    const slow = { ...says("one two three four five six seven eight"), paceMs: 600 };
    mesh().model.script(slow, says("Red and big."));
    const { run } = await done("POST", "/api/v1/runs", { message: "paint" });
    const { run_id: runId, session_id: sessionId } = run;
    const request_id = randomUUID();
    const more = { message: "in red", request_id };
    const first = await done("POST", `/api/v1/runs/${runId}:sendInput`, more, other);
    const again = await done("POST", `/api/v1/runs/${runId}:sendInput`, more);
    assert.equal(again.message_id, first.message_id);
    const busy = await rest().call("POST", "/api/v1/runs", { message: "and big", session_id: sessionId });
    assert.equal(errorOf(busy).reason, "SESSION_BUSY");
    const steered = { message: "and big", session_id: sessionId, on_busy: "ON_BUSY_STEER" };
    assert.equal((await done("POST", "/api/v1/runs", steered, other)).run.run_id, runId);
    assert.equal((await over(runId)).response, "Red and big.");
    const lines = await said(sessionId);
    assert.deepEqual(
      lines.filter((line) => line.startsWith("user")),
      ["user: paint", "user: in red", "user: and big"],
    );
    assert.equal(lines.at(-1), "assistant: Red and big.");
    const late = await rest().call("POST", `/api/v1/runs/${runId}:sendInput`, { message: "too late" });
    assert.equal(errorOf(late).reason, "RUN_NOT_ACTIVE");
  });

  test("a session is forked at a message, and the two go their own ways", async () => {
    mesh().model.reset();
    mesh().model.script(says("One."), says("Two."), says("Three."));
    const { session_id: sessionId } = await done("POST", "/api/v1/chat", { message: "first" });
    await done("POST", "/api/v1/chat", { message: "second", session_id: sessionId });
    const { messages } = await done("GET", `/api/v1/sessions/${sessionId}/messages`);
    const message_id = messages[1].message_id;
    const request = { message_id, title: "Another way", request_id: randomUUID() };
    const [copy, repeated] = [
      await done("POST", `/api/v1/sessions/${sessionId}:fork`, request),
      await done("POST", `/api/v1/sessions/${sessionId}:fork`, request, await elsewhere()),
    ];
    assert.equal(copy.session_id, repeated.session_id);
    assert.deepEqual(await said(copy.session_id), ["user: first", "assistant: One."]);
    const answer = await done("POST", "/api/v1/chat", { message: "third", session_id: copy.session_id });
    assert.equal(answer.response, "Three.");
    assert.match(JSON.stringify(mesh().model.requests.at(-1)?.body.messages), /first.*One\..*third/);
    assert.doesNotMatch(JSON.stringify(mesh().model.requests.at(-1)?.body.messages), /second/);
    assert.equal((await said(sessionId)).length, 4, "the one it was made of is as it was");
  });
});
