import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import type { MeshMethod } from "#tests/conformance/wire/methods.ts";
import { type Actor, createActors } from "./actors.ts";
import { METHODS, mayCall, ownOf, probeAll } from "./campaign.ts";
import { normal } from "./compare.ts";
import { type Door, doorOf, openDoors } from "./doors.ts";
import { idFields, setField } from "./id-fields.ts";
import { type MeshOfTwo, startMeshOfTwo } from "./mesh-of-two.ts";
import { isOwned } from "./probes.ts";

const FEWEST = 2_000;

test("every id field of every request is one that the probes know", () => {
  for (const { method } of METHODS) assert.doesNotThrow(() => idFields(method));
  const probed = METHODS.filter(({ method }) => idFields(method).some(({ kind }) => isOwned(kind)));
  assert.ok(probed.length >= 20, `only ${probed.length} methods name something`);
});

describe("tenants and users are apart", { skip: skipWithoutPostgres() }, () => {
  let mesh: MeshOfTwo;
  let close: () => Promise<void>;
  let doors: readonly Door[];
  before(async () => {
    mesh = await startMeshOfTwo();
    ({ doors, close } = openDoors(mesh));
  });
  after(async () => {
    await close?.();
    await mesh?.[Symbol.asyncDispose]();
  });

  test("a caller's own requests succeed, by every door, so that a refusal below says something", async () => {
    const actors = await createActors(mesh);
    for (const method of METHODS.toSorted((a, b) => rank(a) - rank(b))) {
      for (const door of doors.filter((one) => one.serves(method))) {
        const actor = actors.strangerMachine;
        const answer = await door.ask(actor, method, await ownOf(mesh, method, actor));
        const expected = mayCall(method, actor) ? /^(OK|LEFT)$/ : /^PERMISSION_DENIED$/;
        // A run that was cancelled by the door before is not this process's to cancel any more.
        if (/^(Cancel|Nudge)OwnedRun$/.test(method.method.name) && answer?.code === "NOT_FOUND") continue;
        assert.match(answer?.code ?? "", expected, `${method.name}, ${door.name}: ${JSON.stringify(answer)}`);
      }
    }
  });

  test("no probe of another tenant's or another user's ids shows or changes anything", {
    timeout: 240_000,
  }, async (t) => {
    const { probes, leaks } = await probeAll(mesh, doors);
    t.diagnostic(`isolation probes ${probes}, leaks ${leaks.length}`);
    assert.deepEqual(leaks.slice(0, 3), [], `${leaks.length} leaks`);
    assert.ok(probes >= FEWEST, `only ${probes} probes`);
  });

  test("a request id that somebody else used is as good as a new one", async (t) => {
    const actors = await createActors(mesh);
    const ways = [doorOf(doors, "key", "rest"), doorOf(doors, "key", "grpc"), doorOf(doors, "hop token", "grpc")];
    let reused = 0;
    for (const method of METHODS) {
      const field = idFields(method.method).find(({ kind }) => kind === "request_id");
      if (field === undefined || !method.public || method.platformOnly) continue;
      for (const attacker of [actors.neighbour, actors.strangerMachine, actors.strangerUser]) {
        if (!mayCall(method, attacker) || !mayCall(method, actors.victim)) continue;
        for (const door of ways) {
          reused++;
          const ask = async (actor: Actor, requestId: string) => {
            const request = await ownOf(mesh, method, actor);
            setField(request, field.path, requestId);
            return door.ask(actor, method, request);
          };
          const [used, unused] = [`used-${reused}`, `new-${reused}`];
          const theirs = await ask(actors.victim, used);
          const [again, plain] = [await ask(attacker, used), await ask(attacker, unused)];
          const what = `${method.name} by ${attacker.name}, ${door.name}`;
          assert.ok(theirs?.code === "OK" && again && plain, `${what}: ${JSON.stringify(theirs)}`);
          const pair = { swapped: [{ foreign: used, missing: unused }] };
          assert.equal(normal(again, pair, "foreign"), normal(plain, pair, "missing"), what);
          for (const [id] of JSON.stringify(theirs.messages).matchAll(/\b(ses|run|key)_[0-7][0-9a-z]{25}/g)) {
            assert.ok(!JSON.stringify(again.messages).includes(id), `${what} shows ${id}`);
          }
        }
      }
    }
    t.diagnostic(`request ids reused ${reused}, replayed to another 0`);
    assert.ok(reused >= 30, `only ${reused}`);
  });
});

/** What ends something comes last. */
function rank({ method }: MeshMethod): number {
  return /^(Cancel|Delete|Revoke)/.test(method.name) ? 1 : 0;
}
