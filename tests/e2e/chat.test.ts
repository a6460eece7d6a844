import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { fails, says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { errorOf, RestClient } from "./rest-client.ts";

describeMesh("a chat", (mesh) => {
  const rest = () => new RestClient(mesh().baseUrl, mesh().adminKey);

  test("answers over REST with the document's fields", async () => {
    mesh().model.script(says("Hello there.", { usage: { input_tokens: 11, output_tokens: 3 } }));
    const { status, body } = await rest().call("POST", "/api/v1/chat", { message: "hi" });
    assert.equal(status, 200);
    assert.equal(body.response, "Hello there.");
    assert.match(body.session_id, /^ses_/);
    assert.equal(body.usage.total_tokens, "14");
    assert.equal(body.state, "RUN_STATE_COMPLETED");
  });

  test("streams over REST, with a tool that is really executed, and ends with exactly one final", async () => {
    mesh().model.script(
      turnOf({ type: "text", text: "Let me see. " }, toolUse("calculator", { expression: "12 * 34" })),
      says("It is 408."),
    );
    const events = [];
    let location = "";
    const options = {
      opened(answer: Response) {
        location = answer.headers.get("location") ?? "";
      },
    };
    for await (const event of rest().stream("POST", "/api/v1/chat/stream", { message: "12*34?" }, options)) {
      events.push({ id: Number(event.id), name: event.event, data: JSON.parse(event.data) });
    }
    assert.deepEqual(
      events.map(({ data }) => data.type),
      events.map(({ name }) => name),
    );
    const types = events.map(({ name }) => name).filter((name, i, all) => name !== all[i - 1]);
    assert.deepEqual(types, ["text", "tool_call", "tool_result", "text", "final"]);
    const call = events.find(({ name }) => name === "tool_call")?.data;
    assert.deepEqual(call.args, { expression: "12 * 34" });
    const result = events.find(({ name }) => name === "tool_result")?.data;
    assert.match(result.result, /408/);
    assert.equal(result.call_id, call.call_id);
    assert.equal(result.is_error, false);
    const final = events.at(-1)?.data;
    assert.equal(final.content, "It is 408.");
    assert.equal(final.response, final.content);
    assert.equal(location, `/api/v1/runs/${final.run_id}/events:stream`);
    const ids = events.map(({ id }) => id);
    assert.deepEqual(
      ids,
      ids.toSorted((a, b) => a - b),
    );
    assert.equal(new Set(ids).size, ids.length);
  });

  test("remembers its session, also under the caller's own UUID", async () => {
    const sessionId = randomUUID();
    mesh().model.script(says("I will."));
    const first = await rest().call("POST", "/api/v1/chat", { message: "remember 7", session_id: sessionId });
    assert.equal(first.body.session_id, sessionId);
    mesh().model.script(says("7."));
    await rest().call("POST", "/api/v1/chat", { message: "which?", session_id: sessionId });
    const sent = mesh().model.requests.at(-1)?.body.messages ?? [];
    assert.deepEqual(
      sent.map(({ role }) => role),
      ["user", "assistant", "user"],
    );
    const { body } = await rest().call("GET", `/api/v1/sessions/${sessionId}/messages`);
    assert.deepEqual(
      body.messages.map((message: { role: string }) => message.role),
      ["MESSAGE_ROLE_USER", "MESSAGE_ROLE_ASSISTANT", "MESSAGE_ROLE_USER", "MESSAGE_ROLE_ASSISTANT"],
    );
  });

  describe("over every protocol on the one port", () => {
    const transports = {
      connect: () => createConnectTransport({ baseUrl: mesh().baseUrl, httpVersion: "1.1" }),
      "connect over h2c": () => createConnectTransport({ baseUrl: mesh().baseUrl, httpVersion: "2" }),
      "grpc-web": () => createGrpcWebTransport({ baseUrl: mesh().baseUrl, httpVersion: "1.1" }),
      grpc: () => createGrpcTransport({ baseUrl: mesh().baseUrl }),
    };
    for (const [name, transport] of Object.entries(transports)) {
      test(name, async () => {
        const headers = { authorization: `Bearer ${mesh().adminKey}` };
        mesh().model.script(says(`by ${name}`));
        const seen: string[] = [];
        let text = "";
        const chat = createClient(ChatService, transport());
        for await (const { event } of chat.chatStream({ message: "hello" }, { headers })) {
          seen.push(event?.payload.case ?? "");
          if (event?.payload.case === "text") text += event.payload.value.content;
        }
        assert.equal(text, `by ${name}`);
        assert.equal(seen.at(-1), "final");
        assert.equal(seen.filter((one) => one === "final" || one === "error").length, 1);
        const { sessions } = await createClient(SessionService, transport()).listSessions({ pageSize: 5 }, { headers });
        assert.ok(sessions.length > 0);
      });
    }
  });

  test("attaches a repeated request to the first one's run, and refuses its key for other content", async () => {
    const key = { "idempotency-key": randomUUID() };
    const before = mesh().model.requests.length;
    mesh().model.script(says("once"));
    const first = await rest().call("POST", "/api/v1/chat", { message: "do it" }, key);
    const again = await rest().call("POST", "/api/v1/chat", { message: "do it" }, key);
    assert.equal(again.body.run_id, first.body.run_id);
    assert.equal(again.body.response, "once");
    assert.equal(mesh().model.requests.length, before + 1);
    const other = await rest().call("POST", "/api/v1/chat", { message: "do something else" }, key);
    assert.equal(other.status, 400);
    assert.equal(errorOf(other).reason, "IDEMPOTENCY_KEY_REUSED");
  });

  test("refuses a second turn while one runs, and a cancel ends the first one everywhere", async () => {
    const started = await rest().call("POST", "/api/v1/runs", { message: "[[slow 200]] [[deltas 100]] talk" });
    assert.equal(started.status, 200);
    const { run_id: runId, session_id: sessionId } = started.body.run;
    const busy = await rest().call("POST", "/api/v1/chat", { message: "and now?", session_id: sessionId });
    assert.equal(busy.status, 409);
    assert.equal(errorOf(busy).reason, "SESSION_BUSY");
    const cancelled = await rest().call("POST", `/api/v1/runs/${runId}:cancel`, {});
    assert.equal(cancelled.body.run.state, "RUN_STATE_CANCELLED");
    await eventually(() => mesh().model.openSockets() === 0 || mesh().model.requests.at(-1)?.abandoned === true);
    mesh().model.script(says("Fine."));
    const again = await rest().call("POST", "/api/v1/chat", { message: "fine?", session_id: sessionId });
    assert.equal(again.status, 200);
  });

  test("a failing model ends the run with a typed error, on the wire and in the log", async () => {
    mesh().model.script(fails(400));
    const failed = await rest().call("POST", "/api/v1/chat", { message: "fail" });
    assert.equal(failed.status, 503);
    assert.equal(errorOf(failed).reason, "MODEL_FAILED");
    assert.doesNotMatch(JSON.stringify(failed.body), /test-key/);
  });
});

async function eventually(condition: () => boolean, withinMs = 3_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!condition()) {
    if (performance.now() > deadline) assert.fail("it did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
