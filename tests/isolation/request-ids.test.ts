import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { JsonObject } from "@bufbuild/protobuf";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import type { Answer } from "#tests/conformance/wire/answers.ts";
import type { MeshMethod } from "#tests/conformance/wire/methods.ts";
import { type Actor, createActors } from "./actors.ts";
import { METHODS, mayCall, ownOf } from "./campaign.ts";
import { doorOf, openDoors } from "./doors.ts";
import { idFields, setField } from "./id-fields.ts";
import { type MeshOfTwo, startMeshOfTwo } from "./mesh-of-two.ts";
import { isOwned } from "./probes.ts";

/** Methods that change something and take no `request_id`, with the reason. None so far. */
const WITHOUT: Readonly<Record<string, string>> = {};

const ACTING = METHODS.filter((method) => method.public && !method.readOnly);
const FEWEST = 20;

test("every public method that changes something takes a request id", () => {
  assert.ok(ACTING.length >= FEWEST, `only ${ACTING.length}`);
  const without = ACTING.filter(
    ({ method }) => !method.input.fields.some(({ name, scalar }) => name === "request_id" && scalar !== undefined),
  );
  assert.deepEqual(
    without.map(({ name }) => name),
    Object.keys(WITHOUT),
  );
});

describe("a request id", { skip: skipWithoutPostgres() }, () => {
  let mesh: MeshOfTwo;
  before(async () => {
    mesh = await startMeshOfTwo();
  });
  after(() => mesh?.[Symbol.asyncDispose]());

  test("is one request's, for every method that takes one: repeated it is answered again, with other content refused", async (t) => {
    const { strangerMachine: actor } = await createActors(mesh);
    const { doors, close } = openDoors(mesh);
    await using _ = { [Symbol.asyncDispose]: close };
    const door = doorOf(doors, "key", "grpc");
    const wrong: string[] = [];
    let tried = 0;
    for (const method of ACTING.toSorted((a, b) => rank(a) - rank(b))) {
      if (method.platformOnly || !mayCall(method, actor)) continue;
      tried++;
      const key = `key-${tried}`;
      const ask = (request: JsonObject) => door.ask(actor, method, { ...request, request_id: key });
      const request = await ownOf(mesh, method, actor);
      const first = await ask(request);
      const second = await ask(await otherThan(request, method, actor));
      const again = await ask(request);
      const isRefused = second?.code === "INVALID_ARGUMENT" && second.reason === "IDEMPOTENCY_KEY_REUSED";
      const isSame = again?.code === "OK" && idsIn(again).join() === idsIn(first).join();
      if (first?.code === "OK" && isRefused && isSame) continue;
      wrong.push(`${method.name}: ${JSON.stringify({ first, second, again }, undefined, 1).slice(0, 4_000)}`);
    }
    t.diagnostic(`methods with a request id ${tried}, wrong ${wrong.length}`);
    assert.deepEqual(wrong, []);
    assert.ok(tried >= FEWEST, `only ${tried}`);
  });

  /** A request with other content: about another thing of the actor's, or with another word in it. */
  async function otherThan(request: JsonObject, method: MeshMethod, actor: Actor): Promise<JsonObject> {
    const other = structuredClone(await ownOf(mesh, method, actor));
    if (JSON.stringify(other) !== JSON.stringify(request)) return other;
    const fields = idFields(method.method);
    const word = changeWord(other);
    if (word) return other;
    const named = fields.find(({ kind, path }) => isOwned(kind) && kind !== "tenant" && path.length === 1);
    const second = named !== undefined && isOwned(named.kind) ? actor.owns[named.kind][1] : undefined;
    const etag = fields.find(({ kind }) => kind === "etag");
    if (named !== undefined && second !== undefined) setField(other, named.path, second);
    else if (etag !== undefined) setField(other, etag.path, "1");
    else if (method.method.input.fields.some(({ name }) => name === "comment")) other["comment"] = "another word";
    else throw new Error(`${method.name}: say here how a request of it can be another one`);
    return other;
  }
});

/** Words of a request that nothing else depends on. */
const WORDS = new Set(["message", "title", "name", "display_name", "api_key"]);

/** Changes the first one there is, also in a resource of the request. */
function changeWord(object: JsonObject): boolean {
  for (const [name, value] of Object.entries(object)) {
    if (typeof value === "string" && WORDS.has(name)) {
      object[name] = `${value}-other`;
      return true;
    }
    if (typeof value === "object" && value !== null && !Array.isArray(value) && changeWord(value)) return true;
  }
  return false;
}

/** What was made, or spoken of. */
function idsIn(answer: Answer | undefined): string[] {
  const ids = JSON.stringify(answer?.messages ?? []).match(/\b(ses|run|key|agt|apr)_[0-7][0-9a-z]{25}/g);
  return [...new Set(ids)].toSorted();
}

/** What ends something comes last. */
function rank({ method }: MeshMethod): number {
  return /^(Cancel|Delete|Revoke)/.test(method.name) ? 1 : 0;
}
