import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunOutcome, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { type ListSessionsRequest, SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import {
  AgentConfigService,
  AgentSchema,
  type ListAgentsRequest,
  type UpdateAgentRequest,
} from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { notFound } from "#platform/rpc/errors.ts";
import { PUBLIC_SERVICES } from "../public-services.ts";
import { openTestGateway, TENANT, type TestGateway } from "../testing/test-gateway.ts";
import { DOCUMENT_ALIASES } from "./document-aliases.ts";

// The REST endpoints that the design document writes out, with the bodies that it has. Each transcript is a golden file:
// delete one to have it written anew, and look at it before it is committed.

const RUN = "run_00000000000000000000000001";
const SESSION = "ses_00000000000000000000000001";
const AGENT = "agt_00000000000000000000000001";
const time = (seconds: bigint) => ({ seconds, nanos: 0 });
const usage = { inputTokens: 12n, outputTokens: 30n, totalTokens: 42n };

const seen: { list?: ListSessionsRequest | ListAgentsRequest; update?: UpdateAgentRequest } = {};

function storedAgent(change: MessageInitShape<typeof AgentSchema> = {}): MessageInitShape<typeof AgentSchema> {
  return create(AgentSchema, {
    agentId: AGENT,
    name: "support",
    llmProvider: "anthropic",
    llmModel: "claude-sonnet-4-5",
    maxTokens: 4096,
    temperature: 0.7,
    maxIterations: 20,
    tools: ["calculator"],
    version: 1,
    etag: "v1",
    tenantId: TENANT,
    createTime: time(1_767_225_600n),
    updateTime: time(1_767_225_700n),
    ...change,
  } as never);
}

let edge: TestGateway;

before(async () => {
  edge = await openTestGateway({
    services: [ChatService, SessionService, AgentConfigService],
    components: ["postgres", "redis", "nats", "model"].map((name) => ({
      name,
      required: name === "postgres",
      kind: "embedded",
      ping: async () => {},
    })),
    routes: (router) => {
      router.service(ChatService, {
        chat: ({ message }) => ({
          response: `You said: ${message}`,
          sessionId: SESSION,
          usage,
          runId: RUN,
          state: RunState.COMPLETED,
          outcome: RunOutcome.ANSWERED,
        }),
        async *chatStream({ message }, { responseHeader }) {
          responseHeader.set("location", `/api/v1/runs/${RUN}/events:stream`);
          yield { event: { seq: 2n, payload: { case: "text", value: { content: "Let me ", itemId: "msg_1" } } } };
          yield { event: { seq: 3n, payload: { case: "text", value: { content: "see.\n", itemId: "msg_1" } } } };
          const call = { tool: "calculator", argsJson: '{"expression": "6*7"}', callId: "call_1" };
          yield { event: { seq: 5n, payload: { case: "toolCall", value: call } } };
          const result = { tool: "calculator", result: "42", callId: "call_1", isError: false };
          yield { event: { seq: 6n, payload: { case: "toolResult", value: result } } };
          const error = {
            code: "UNAVAILABLE",
            reason: "OWNER_LOST",
            message: "The owner died.",
            retry: RetryAdvice.EXHAUSTED,
            runId: RUN,
            sessionId: SESSION,
          };
          const final = {
            content: "42",
            response: "42",
            sessionId: SESSION,
            usage,
            runId: RUN,
            state: 4,
            outcome: 1,
          } as const;
          const payload =
            message === "fail" ? { case: "error" as const, value: error } : { case: "final" as const, value: final };
          yield { event: { seq: 9n, payload } };
        },
      });
      router.service(SessionService, {
        listSessions: (request) => {
          seen.list = request;
          const session = { sessionId: SESSION, agentId: AGENT, title: "First", messageCount: 2, etag: "v1" };
          return { sessions: [{ ...session, createTime: time(1_767_225_600n), updateTime: time(1_767_225_700n) }] };
        },
        deleteSession: ({ sessionId }) => {
          if (sessionId !== SESSION) throw notFound("session");
          return {};
        },
      });
      router.service(AgentConfigService, {
        createAgent: ({ agent }) => ({ agent: storedAgent({ name: agent?.name ?? "", tools: agent?.tools ?? [] }) }),
        getAgent: () => ({ agent: storedAgent() }),
        listAgents: (request) => {
          seen.list = request;
          return { agents: [storedAgent()], nextPageToken: "next" };
        },
        updateAgent: (request) => {
          seen.update = request;
          return { agent: storedAgent({ name: request.agent?.name ?? "", version: 2, etag: "v2" }) };
        },
        deleteAgent: () => ({}),
      });
    },
  });
});
after(() => edge[Symbol.asyncDispose]());

interface Golden {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
}

const AGENTS = `/api/v1/tenants/${TENANT}/agents`;

const goldens: readonly Golden[] = [
  { name: "chat", method: "POST", path: "/api/v1/chat", body: { message: "hi", session_id: null } },
  { name: "chat-stream", method: "POST", path: "/api/v1/chat/stream", body: { message: "What is 6*7?" } },
  { name: "chat-stream-failed", method: "POST", path: "/api/v1/chat/stream", body: { message: "fail" } },
  { name: "chat-invalid", method: "POST", path: "/api/v1/chat", body: { message: "", sesion_id: "x" } },
  { name: "list-sessions", method: "GET", path: "/api/v1/sessions?limit=50" },
  { name: "delete-session", method: "DELETE", path: `/api/v1/sessions/${SESSION}` },
  { name: "delete-session-missing", method: "DELETE", path: "/api/v1/sessions/ses_other" },
  {
    name: "create-agent",
    method: "POST",
    path: AGENTS,
    body: {
      name: "support",
      description: "",
      llm_provider: "anthropic",
      llm_model: "claude-3-5-sonnet-20241022",
      max_tokens: 4096,
      temperature: 0.7,
      max_iterations: 20,
      system_prompt: "",
      tools: ["calculator"],
    },
  },
  { name: "list-agents", method: "GET", path: `${AGENTS}?skip=10&limit=20` },
  { name: "get-agent", method: "GET", path: `${AGENTS}/${AGENT}` },
  {
    name: "update-agent",
    method: "PATCH",
    path: `${AGENTS}/${AGENT}`,
    body: { name: "renamed", temperature: 0, tools: null },
  },
  { name: "health", method: "GET", path: "/health" },
  { name: "delete-agent", method: "DELETE", path: `${AGENTS}/${AGENT}` },
];

const SHOWN_HEADERS = ["content-type", "cache-control", "etag", "location", "x-accel-buffering"];

async function transcript({ method, path, body }: Golden): Promise<string> {
  const sent =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await edge.fetch(path, { method, ...sent });
  const text = (await response.text())
    .replaceAll(/\breq_[0-9a-z]{26}\b/g, "req_normalised")
    .replaceAll(/"latency_ms":\d+/g, '"latency_ms":0')
    .replaceAll(/"timestamp":"[^"]+"/g, '"timestamp":"2026-01-01T00:00:00.000Z"');
  const isJson = response.headers.get("content-type") === "application/json";
  return [
    `${method} ${path}`,
    ...(body === undefined ? [] : [JSON.stringify(body, null, 2)]),
    "",
    String(response.status),
    ...SHOWN_HEADERS.flatMap((name) => (response.headers.has(name) ? [`${name}: ${response.headers.get(name)}`] : [])),
    "",
    isJson ? `${JSON.stringify(JSON.parse(text), null, 2)}\n` : text,
  ].join("\n");
}

describe("the design document's REST endpoints", () => {
  for (const golden of goldens) {
    test(`${golden.method} ${golden.path} answers as its golden transcript says`, async () => {
      const file = new URL(`goldens/${golden.name}.txt`, import.meta.url);
      const actual = await transcript(golden);
      const expected = await readFile(file, "utf8").catch(() => undefined);
      if (expected === undefined) {
        await writeFile(file, actual);
        assert.fail(`${golden.name}.txt was missing and is written now: look at it and run again`);
      }
      assert.equal(actual, expected);
    });
  }

  test("limit and skip reach both lists as page_size and skip", async () => {
    await edge.json("GET", "/api/v1/sessions?limit=7&skip=3");
    assert.deepEqual([seen.list?.pageSize, seen.list?.skip], [7, 3]);
    await edge.json("GET", `${AGENTS}?limit=8&skip=4`);
    assert.deepEqual([seen.list?.pageSize, seen.list?.skip], [8, 4]);
    assert.equal((await edge.json("GET", `/api/v1/sessions/${SESSION}/messages?limit=8`)).status, 400);
  });

  test("a PATCH changes the keys that it has, and an agent that was read may be sent back whole", async () => {
    await edge.json("PATCH", `${AGENTS}/${AGENT}`, { name: "", max_tokens: null });
    assert.deepEqual(seen.update?.updateMask?.paths, ["name", "max_tokens"]);
    const { body } = await edge.json("GET", `${AGENTS}/${AGENT}`);
    const { status } = await edge.json("PATCH", `${AGENTS}/${AGENT}`, { ...body, name: "renamed" });
    assert.equal(status, 200);
    assert.equal(seen.update?.agent?.etag, "v1");
    const paths = seen.update?.updateMask?.paths ?? [];
    assert.ok(paths.includes("name") && paths.includes("llm_model"), paths.join());
    for (const path of ["agent_id", "version", "etag", "tenant_id", "create_time", "update_time"]) {
      assert.ok(!paths.includes(path), path);
    }
  });

  test("every alias names a method or a field that exists", () => {
    const methods = PUBLIC_SERVICES.flatMap((service) => service.methods);
    const methodOf = (name: string) => methods.find((method) => `${method.parent.typeName}.${method.name}` === name);
    for (const [name, aliases] of Object.entries(DOCUMENT_ALIASES.query)) {
      for (const [alias, field] of Object.entries(aliases)) {
        const names = methodOf(name)?.input.fields.map((one) => one.name) ?? [];
        assert.ok(names.includes(field) && !names.includes(alias), `${name}: ${alias} → ${field}`);
      }
    }
    for (const name of Object.keys(DOCUMENT_ALIASES.answer)) assert.ok(methodOf(name), name);
    const resources = new Map(
      [AgentSchema, SessionService.method.getSession.output.field["session"]?.message].map((desc) => [
        desc?.typeName,
        desc,
      ]),
    );
    for (const [name, aliases] of Object.entries(DOCUMENT_ALIASES.fields)) {
      for (const [alias, field] of Object.entries(aliases)) {
        const names = resources.get(name)?.fields.map((one) => one.name) ?? [];
        assert.ok(names.includes(field) && !names.includes(alias), `${name}: ${alias} → ${field}`);
      }
    }
  });
});
