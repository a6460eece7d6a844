import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { type MeshUnderTest, startMesh } from "#tests/e2e/mesh-under-test.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { BINARY_FLAWS, fuzzBinary } from "./fuzz-binary.ts";
import { brokenJson, fuzzJson, JSON_FLAWS } from "./fuzz-json.ts";
import type { Known } from "./fuzz-values.ts";
import { Random } from "./random.ts";
import { answerOf } from "./wire/answers.ts";
import { binaryRequest, FACES, type Face, isJson, jsonRequest } from "./wire/faces.ts";
import { H2Client, type WireRequest } from "./wire/h2-client.ts";
import { type MeshMethod, meshMethods } from "./wire/methods.ts";

/**
 * Messages per face. Without the variable as many of 20 000 as fit the time that CI has for them; the long form is
 * AGENTMESH_FUZZ_MESSAGES=20000 node --test tests/conformance/fuzz.test.ts
 */
const ASKED = process.env["AGENTMESH_FUZZ_MESSAGES"];
const MESSAGES = Number(ASKED ?? 20_000);
const BUDGET_MS = ASKED === undefined ? 12_000 : Number.POSITIVE_INFINITY;
const FEWEST = Math.min(300, MESSAGES);
/** AGENTMESH_FUZZ_SEED repeats a run. */
const SEED = Number(process.env["AGENTMESH_FUZZ_SEED"] ?? randomInt(2 ** 31));
const AT_A_TIME = 24;
const QUIET_MS = 15_000;
/** Of requests that start a run this part is sent: a run costs a hundred times what a refusal does. */
const RUNS_SENT = 0.15;

const METHODS = meshMethods().filter((method) => method.public);
const RUN_METHODS = new Set(["Chat", "ChatStream", "StartRun"]);

/** The rate limits are not what is tested here. */
const NO_RATE_LIMITS = Object.fromEntries(
  ["TENANT_RUNS", "TENANT_WRITES", "TENANT_READS", "KEY_RUNS", "KEY_WRITES", "KEY_READS", "ADDRESS_FAILURES"].map(
    (name) => [`AGENTMESH_GATEWAY__RATES__${name}`, "0"],
  ),
);

describe(`messages of every kind on every face (seed ${SEED})`, () => {
  let mesh: MeshUnderTest;
  let known: Known;
  let key: string;
  before(async () => {
    mesh = await startMesh("embedded", { ...NO_RATE_LIMITS, AGENTMESH_TELEMETRY__LOG__LEVEL: "error" });
    ({ known, key } = await ownThings(mesh));
  });
  after(() => mesh?.stop());

  for (const [i, face] of FACES.entries()) {
    test(`${face}: none is answered with INTERNAL or UNKNOWN, and none breaks the process`, {
      timeout: 3_600_000,
    }, async (t) => {
      const random = new Random(SEED + i);
      const codes = new Map<string, number>();
      const wrong: string[] = [];
      await using client = new H2Client(mesh.baseUrl, 2);
      // What is larger than a connection may carry can cost the connection; its neighbours are not to pay.
      await using offender = new H2Client(mesh.baseUrl, 1);
      let sent = 0;
      const began = performance.now();
      const one = async () => {
        while (sent < MESSAGES && performance.now() - began < BUDGET_MS) {
          const number = sent;
          const { method, request, flaw } = nextRequest(face, random, known, key, mesh.adminKey);
          if (request === undefined) continue;
          sent++;
          const huge = request.path.length > 8_000 || (request.body?.length ?? 0) > 4_000_000;
          const ask = () => (huge ? offender : client).send(request, QUIET_MS);
          const first = await ask();
          // A connection may end with GOAWAY, and its client asks again on the next one.
          const wire = first.end === "broken" ? await ask() : first;
          const { code, reason, message } = answerOf(face, method.method, wire);
          codes.set(code, (codes.get(code) ?? 0) + 1);
          if (isWrong(code, reason, wire.status) && !(code === "BROKEN" && huge)) {
            const said = Buffer.from(request.body ?? "").toString(isJson(face) ? "utf8" : "base64");
            wrong.push(
              `#${number} ${method.name} ${request.path} ${flaw}: ${code} ${reason} ${message} for ${said.slice(0, 600)}`,
            );
          }
        }
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, one));
      const perSecond = Math.round(sent / ((performance.now() - began) / 1000));
      const said = [...codes].map(([code, count]) => `${code} ${count}`).join(", ");
      t.diagnostic(`fuzz ${face} ${sent} messages, ${wrong.length} wrong, ${perSecond}/s, seed ${SEED}: ${said}`);
      assert.deepEqual(
        wrong.slice(0, 5),
        [],
        `${wrong.length} wrong answers; AGENTMESH_FUZZ_SEED=${SEED} repeats them`,
      );
      assert.ok((codes.get("OK") ?? 0) > sent / 100, "some are right");
      assert.ok(sent >= FEWEST, `only ${sent} messages`);
      await assertUnharmed(mesh);
    });
  }
});

interface Next {
  method: MeshMethod;
  request: WireRequest | undefined;
  flaw: string;
}

function nextRequest(face: Face, random: Random, known: Known, key: string, adminKey: string): Next {
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
  const request = jsonRequest(face, method.method, json, headers);
  if (request?.body === undefined || !random.chance(0.08)) return { method, request, flaw };
  if (method.method.methodKind !== "unary" && face !== "rest") return { method, request, flaw };
  return { method, request: { ...request, body: brokenJson(json, random) }, flaw: "broken" };
}

function isWrong(code: string, reason: string, status: number): boolean {
  if (reason === "RATE_LIMITED") return true;
  if (["INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "BROKEN", "LEFT"].includes(code)) return true;
  return status >= 500 && code !== "DEADLINE_EXCEEDED" && code !== "UNIMPLEMENTED";
}

/** The process lives, answers, and has printed nothing that only a defect prints. */
async function assertUnharmed(mesh: MeshUnderTest): Promise<void> {
  const { status } = await new RestClient(mesh.baseUrl, undefined).call("GET", "/health/ready");
  assert.equal(status, 200);
  for (const process of mesh.processes.values()) {
    assert.doesNotMatch(process.output(), /unhandled|uncaught|out of memory|at .*\.ts:\d+:\d+\)/i);
  }
}

/** A tenant with a little of everything, so that a fuzzed request sometimes names what exists. */
async function ownThings(mesh: MeshUnderTest): Promise<{ known: Known; key: string }> {
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
