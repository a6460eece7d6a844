import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { newId } from "#platform/id.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { errorOf, type RestAnswer, RestClient } from "./rest-client.ts";

interface Case {
  what: string;
  method?: string;
  path: string;
  body?: unknown;
  headers?: Record<string, string>;
  status: number;
  reason: string;
  field?: string;
}

const CHAT = "/api/v1/chat";
const deep = `${'{"a":'.repeat(100)}1${"}".repeat(100)}`;

const CASES: Case[] = [
  {
    what: "an unknown field",
    path: CHAT,
    body: { message: "x", sesion_id: "y" },
    status: 400,
    reason: "FIELD_UNKNOWN",
    field: "sesion_id",
  },
  {
    what: "a number for text",
    path: CHAT,
    body: { message: 7 },
    status: 400,
    reason: "FIELD_INVALID",
    field: "message",
  },
  {
    what: "a list for a message",
    path: CHAT,
    body: { message: "x", context: [] },
    status: 400,
    reason: "FIELD_INVALID",
    field: "context",
  },
  {
    what: "an empty message",
    path: CHAT,
    body: { message: "" },
    status: 400,
    reason: "FIELD_INVALID",
    field: "message",
  },
  { what: "a missing message", path: CHAT, body: {}, status: 400, reason: "FIELD_INVALID", field: "message" },
  {
    what: "a temperature out of range",
    path: "/api/v1/tenants/me/agents",
    body: { name: "x", temperature: 3 },
    status: 400,
    reason: "FIELD_INVALID",
    field: "agent.temperature",
  },
  { what: "truncated JSON", path: CHAT, body: '{"message": "x', status: 400, reason: "BODY_MALFORMED" },
  { what: "text behind the JSON", path: CHAT, body: '{"message": "x"} y', status: 400, reason: "BODY_MALFORMED" },
  {
    what: "JSON nested too deep",
    path: CHAT,
    body: `{"message":"x","context":${deep}}`,
    status: 400,
    reason: "BODY_MALFORMED",
  },
  {
    what: "a body that is too large",
    path: CHAT,
    body: { message: "x".repeat(5_000_000) },
    status: 413,
    reason: "PAYLOAD_TOO_LARGE",
  },
  {
    what: "a body that is not JSON",
    path: CHAT,
    body: "message=x",
    headers: { "content-type": "text/plain" },
    status: 415,
    reason: "BODY_MALFORMED",
  },
  {
    what: "an unknown query parameter",
    method: "GET",
    path: "/api/v1/sessions?pagesize=3",
    status: 400,
    reason: "FIELD_UNKNOWN",
    field: "pagesize",
  },
  {
    what: "a negative page size",
    method: "GET",
    path: "/api/v1/sessions?page_size=-1",
    status: 400,
    reason: "FIELD_INVALID",
    field: "page_size",
  },
  {
    what: "a page token that is none",
    method: "GET",
    path: "/api/v1/sessions?page_token=abc",
    status: 400,
    reason: "PAGE_TOKEN_INVALID",
    field: "page_token",
  },
  {
    what: "a cursor above the run's numbers",
    method: "GET",
    path: "/api/v1/runs/RUN/events:stream?after_seq=9000000000",
    status: 400,
    reason: "EVENT_CURSOR_AHEAD",
  },
  { what: "a path that does not exist", method: "GET", path: "/api/v1/nope", status: 404, reason: "ROUTE_NOT_FOUND" },
  {
    what: "a session that does not exist",
    method: "GET",
    path: `/api/v1/sessions/${newId("ses")}`,
    status: 404,
    reason: "RESOURCE_NOT_FOUND",
  },
  {
    what: "a session id that is none",
    path: CHAT,
    body: { message: "x", session_id: "what" },
    status: 404,
    reason: "RESOURCE_NOT_FOUND",
  },
  {
    what: "an agent that does not exist",
    path: CHAT,
    body: { message: "x", agent_id: newId("agt") },
    status: 404,
    reason: "RESOURCE_NOT_FOUND",
  },
  {
    what: "another tenant in the path",
    method: "GET",
    path: `/api/v1/tenants/${newId("ten")}/agents`,
    status: 404,
    reason: "RESOURCE_NOT_FOUND",
  },
];

describeMesh("bad input", (mesh) => {
  const rest = (key: string | undefined = mesh().adminKey) => new RestClient(mesh().baseUrl, key);

  for (const { what, method = "POST", path, body, headers = {}, status, reason, field } of CASES) {
    test(`${what} is ${status} ${reason}${field === undefined ? "" : ` naming ${field}`}`, async () => {
      // Another tenant's path is for those who may not cross; the admin key may.
      const caller = path.includes("/tenants/ten_") ? rest(await tenantKey()) : rest();
      const run = path.includes("RUN") ? (await caller.call("POST", CHAT, { message: "x" })).body.run_id : "";
      const answer = await caller.call(method, path.replace("RUN", run), body, headers);
      assert.equal(answer.status, status, JSON.stringify(answer.body));
      const error = errorOf(answer);
      assert.equal(error.reason, reason);
      if (field !== undefined) assert.deepEqual(error.fields, [field]);
      assert.doesNotMatch(JSON.stringify(answer.body), /agentmesh\.(agent|config)\.v1|at .*\.ts/);
    });
  }

  test("a missing, a malformed and an unknown credential are 401", async () => {
    const cases: [string | undefined, string][] = [
      [undefined, "CREDENTIAL_MISSING"],
      ["nonsense", "CREDENTIAL_INVALID"],
      [`${mesh().adminKey.slice(0, -1)}x`, "CREDENTIAL_INVALID"],
    ];
    for (const [key, reason] of cases) {
      const answer = await new RestClient(mesh().baseUrl, key).call("GET", "/api/v1/sessions");
      assert.equal(answer.status, 401);
      assert.equal(errorOf(answer).reason, reason);
      assert.match(answer.headers.get("www-authenticate") ?? "", /^Bearer/);
    }
  });

  test("a missing scope is 403 and says which would do", async () => {
    const created = await rest().call("POST", "/api/v1/api-keys", { name: "reader", scopes: ["sessions:read"] });
    const answer = await rest(created.body.secret).call("POST", CHAT, { message: "x" });
    assert.equal(answer.status, 403);
    assert.equal(errorOf(answer).reason, "SCOPE_MISSING");
    assert.match(errorOf(answer).message, /agents:run/);
  });

  test("a revoked key is refused within five seconds", async () => {
    const { body } = await rest().call("POST", "/api/v1/api-keys", { name: "short-lived", scopes: ["sessions:read"] });
    const used = rest(body.secret);
    assert.equal((await used.call("GET", "/api/v1/sessions")).status, 200);
    await rest().call("DELETE", `/api/v1/api-keys/${body.api_key.api_key_id}`);
    const deadline = performance.now() + 5_000;
    let last: RestAnswer;
    do {
      last = await used.call("GET", "/api/v1/sessions");
    } while (last.status === 200 && performance.now() < deadline);
    assert.equal(last.status, 401);
    assert.equal(errorOf(last).reason, "CREDENTIAL_INVALID");
  });

  test("another tenant's ids and another user's ids answer as missing ones", async () => {
    const owner = rest(await keyOfUser("usr_a"));
    const { body } = await owner.call("POST", CHAT, { message: "mine", session_id: randomUUID() });
    const { session_id: external, run_id: runId } = body;
    const sessions = (await owner.call("GET", "/api/v1/sessions")).body.sessions;
    const sessionId = sessions[0].session_id;
    const strangers = { "another tenant": rest(await tenantKey()), "another user": rest(await keyOfUser("usr_b")) };
    for (const [who, stranger] of Object.entries(strangers)) {
      const probes: [string, string, string, unknown?][] = [
        ["GET", `/api/v1/sessions/${sessionId}`, sessionId],
        ["GET", `/api/v1/sessions/${external}`, external],
        ["GET", `/api/v1/sessions/${sessionId}/messages`, sessionId],
        ["PATCH", `/api/v1/sessions/${sessionId}`, sessionId, { title: "taken" }],
        ["DELETE", `/api/v1/sessions/${sessionId}`, sessionId],
        ["GET", `/api/v1/runs/${runId}`, runId],
        ["GET", `/api/v1/runs/${runId}/events`, runId],
        ["GET", `/api/v1/runs/${runId}/events:stream`, runId],
        ["POST", `/api/v1/runs/${runId}:cancel`, runId, {}],
        ["POST", CHAT, sessionId, { message: "hello", session_id: sessionId }],
      ];
      for (const [method, path, id, sent] of probes) {
        const missing = id.startsWith("run_") ? newId("run") : id.startsWith("ses_") ? newId("ses") : randomUUID();
        const foreign = await stranger.call(method, path, sent);
        const swapped = sent === undefined ? undefined : JSON.parse(JSON.stringify(sent).replaceAll(id, missing));
        const absent = await stranger.call(method, path.replaceAll(id, missing), swapped);
        assert.equal(foreign.status, 404, `${who}: ${method} ${path}`);
        assert.deepEqual(normal(foreign, id), normal(absent, missing), `${who}: ${method} ${path}`);
      }
      const listed = await stranger.call("GET", "/api/v1/sessions");
      assert.doesNotMatch(JSON.stringify(listed.body), new RegExp(sessionId));
    }
  });

  async function keyOfUser(userId: string): Promise<string> {
    const scopes = ["agents:run", "sessions:write", "runs:write"];
    const { body } = await rest().call("POST", "/api/v1/api-keys", { name: userId, user_id: userId, scopes });
    return body.secret;
  }

  async function tenantKey(): Promise<string> {
    const { body: tenant } = await rest().call("POST", "/api/v1/tenants", { name: `tenant ${randomUUID()}` });
    const { body } = await rest().call("POST", `/api/v1/tenants/${tenant.tenant_id}/api-keys`, { name: "first" });
    return body.secret;
  }
});

/** An answer without what must differ: the probed id and the request id. */
function normal({ status, body }: RestAnswer, id: string): unknown {
  const text = JSON.stringify(body)
    .replaceAll(id, "ID")
    .replace(/"request_?[iI]d":"[^"]*"/g, '"request_id":"R"');
  return { status, body: text };
}
