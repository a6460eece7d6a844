import assert from "node:assert/strict";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import type { MeshUnderTest } from "#tests/e2e/mesh-under-test.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { BINARY_FLAWS, fuzzBinary } from "./fuzz-binary.ts";
import { brokenJson, fuzzJson, JSON_FLAWS } from "./fuzz-json.ts";
import type { Known } from "./fuzz-values.ts";
import type { Random } from "./random.ts";
import { binaryRequest, type Face, isJson, jsonRequest } from "./wire/faces.ts";
import type { WireRequest } from "./wire/h2-client.ts";
import { type MeshMethod, meshMethods } from "./wire/methods.ts";

/** Of requests that start a run this part is sent: a run costs a hundred times what a refusal does. */
const RUNS_SENT = 0.15;
/**
 * HPACK carries no more than 64 KiB of a header, encoded, and who gets more has to end the connection (RFC 9113 §4.3);
 * that is a test of its own in gateway/too-large.test.ts. What is longer is cut, wherever that may be.
 */
const MAX_TARGET = 60_000;

const METHODS = meshMethods().filter((method) => method.public);
const RUN_METHODS = new Set(["Chat", "ChatStream", "StartRun"]);

/** Whose requests they are, and what they may name that exists. */
export interface FuzzTenant {
  readonly known: Known;
  readonly key: string;
  readonly adminKey: string;
}

export interface FuzzRequest {
  readonly method: MeshMethod;
  /** Undefined when the face cannot say it, or when it is left out. */
  readonly request: WireRequest | undefined;
  readonly flaw: string;
}

/** A request of any public method that may be anything. */
export function fuzzRequest(face: Face, random: Random, { known, key, adminKey }: FuzzTenant): FuzzRequest {
  const method = random.pick(METHODS);
  if (RUN_METHODS.has(method.method.name) && !random.chance(RUNS_SENT)) return { method, request: undefined, flaw: "" };
  const headers = { authorization: `Bearer ${method.platformOnly ? adminKey : key}` };
  if (!isJson(face)) {
    const flaw = random.pick(BINARY_FLAWS);
    const bytes = fuzzBinary(method.method.input, random, known, flaw);
    return { method, request: binaryRequest(face, method.method, bytes, headers), flaw };
  }
  const flaw = random.pick(JSON_FLAWS);
  const json = fuzzJson(method.method.input, random, known, flaw);
  const whole = jsonRequest(face, method.method, json, headers);
  const request = whole && { ...whole, path: whole.path.slice(0, MAX_TARGET) };
  if (request?.body === undefined || !random.chance(0.08)) return { method, request, flaw };
  if (method.method.methodKind !== "unary" && face !== "rest") return { method, request, flaw };
  return { method, request: { ...request, body: brokenJson(json, random) }, flaw: "broken" };
}

/** A tenant with a little of everything, so that a fuzzed request sometimes names what exists. */
export async function fuzzTenant(mesh: MeshUnderTest): Promise<FuzzTenant> {
  const admin = new RestClient(mesh.baseUrl, mesh.adminKey);
  const { body: tenant } = await admin.call("POST", "/api/v1/tenants", {
    name: "fuzz",
    tier: "TENANT_TIER_ENTERPRISE",
  });
  const made = await admin.call("POST", `/api/v1/tenants/${tenant.tenant_id}/api-keys`, {
    name: "fuzz",
    scopes: [...TENANT_SCOPES],
  });
  const key = made.body.secret as string;
  const rest = admin.as(key);
  const { body: chat } = await rest.call("POST", "/api/v1/chat", { message: "hello" });
  const { body: session } = await rest.call("POST", "/api/v1/sessions", { title: "fuzz" });
  const { body: agent } = await rest.call("POST", "/api/v1/tenants/me/agents", { name: "fuzz" });
  const { body: spare } = await rest.call("POST", "/api/v1/api-keys", { name: "spare", scopes: ["sessions:read"] });
  assert.ok(chat.run_id && session.session_id && agent.agent_id && spare.api_key);
  return {
    key,
    adminKey: mesh.adminKey,
    known: {
      tenant_id: ["me"],
      session_id: [session.session_id, chat.session_id],
      run_id: [chat.run_id],
      agent_id: [agent.agent_id],
      api_key_id: [spare.api_key.api_key_id],
      tool_id: ["todo", "calculator"],
      name: [agent.name, "another name"],
      message: ["hello", "tell me more"],
      scopes: ["sessions:read", "runs:read"],
      llm_provider: ["anthropic"],
      tools: ["calculator"],
      etag: ["1", "v1"],
      page_token: [""],
    },
  };
}
