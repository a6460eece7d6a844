import assert from "node:assert/strict";
import { authRule } from "#platform/rpc/method-rules.ts";
import { grantsAny } from "#platform/rpc/scopes.ts";
import { type MeshMethod, meshMethods } from "#tests/conformance/wire/methods.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { type Actor, type Actors, createActors, fresh, type OwnedKind, snapshot } from "./actors.ts";
import { leakIn, secretsOf } from "./compare.ts";
import type { Door } from "./doors.ts";
import { idFields } from "./id-fields.ts";
import type { MeshOfTwo } from "./mesh-of-two.ts";
import { ownRequest, probesOf, type VictimState } from "./probes.ts";

export const METHODS = meshMethods();

/** Sends every probe of every attacker through every door, against tenants of its own. */
export async function probeAll(mesh: MeshOfTwo, doors: readonly Door[]): Promise<{ probes: number; leaks: string[] }> {
  const actors = await createActors(mesh.gatewayUrl, mesh.adminKey);
  const { victim, neighbour, strangerMachine, strangerUser } = actors;
  const states = await victimStates(mesh, doors, actors);
  const before = await snapshot(mesh.gatewayUrl, victim);
  const leaks: string[] = [];
  let probes = 0;
  const byAttacker = async (attacker: Actor, methods: readonly MeshMethod[]) => {
    const secrets = secretsOf(victim, attacker);
    for (const method of methods) {
      // What only services may ask was checked for the user by the service that asks; the tenant is checked again.
      if (!method.public && attacker === neighbour) continue;
      // A refusal for want of a scope says little; once is enough.
      if (!mayCall(method, attacker) && attacker !== strangerMachine) continue;
      for (const door of doors.filter((one) => one.serves(method))) {
        for (const probe of probesOf(method, attacker, victim, states.get(method.name) ?? NO_STATE)) {
          const [foreign, missing] = await Promise.all([
            door.ask(attacker, method, probe.foreign),
            method.readOnly ? door.ask(attacker, method, probe.missing) : undefined,
          ]);
          if (foreign === undefined) continue;
          const twin = missing ?? (await door.ask(attacker, method, probe.missing));
          probes++;
          const leak = twin && leakIn(probe, foreign, twin, secrets);
          if (leak !== undefined) leaks.push(`${door.name}: ${leak.slice(0, 2_000)}`);
        }
      }
    }
  };
  // What one method leaves in the attacker's own tenant must not tell a probe of a later one from its twin: reads come
  // first, and runs last, since one in a session whose UUID is foreign makes the attacker a session of that UUID.
  for (const turn of [0, 1, 2]) {
    const methods = METHODS.filter((method) => turnOf(method) === turn);
    await Promise.all([neighbour, strangerMachine, strangerUser].map((attacker) => byAttacker(attacker, methods)));
  }
  if ((await snapshot(mesh.gatewayUrl, victim)) !== before) leaks.push("a probe changed what the victim has");
  return { probes, leaks };
}

/** What the victim is told by each list, and the versions of its resources. */
async function victimStates(
  mesh: MeshOfTwo,
  doors: readonly Door[],
  { victim, strangerMachine }: Actors,
): Promise<Map<string, VictimState>> {
  const door = doors[2] as Door;
  const states = new Map<string, VictimState>();
  for (const method of METHODS) {
    const pages = idFields(method.method).some(({ kind }) => kind === "page_token");
    const actor = mayCall(method, victim) ? victim : strangerMachine;
    const request = { ...(await ownOf(mesh, method, actor)), page_size: 1 };
    const answer = pages ? await door.ask(actor, method, request) : undefined;
    const token = (answer?.messages[0] as { next_page_token?: string } | undefined)?.next_page_token;
    if (pages && mayCall(method, victim)) assert.ok(token, `${method.name} has no second page to probe with`);
    states.set(method.name, { pageToken: token, etags: [method.name.includes("Agent") ? "v1" : "1"], lastSeq: "3" });
  }
  return states;
}

/** A request of the method in which all is the actor's own; for one that destroys, something made for it. */
export async function ownOf(mesh: MeshOfTwo, method: MeshMethod, actor: Actor) {
  const spares = new Map<OwnedKind, string>();
  if (/^(Delete|Revoke)/.test(method.method.name)) {
    const kind = ({ Session: "session", Agent: "agent", ApiKey: "key" } as const)[
      method.method.name.replace(/^(Delete|Revoke)/, "") as "Session"
    ];
    const spare = mayCall(method, actor) ? await fresh(new RestClient(mesh.gatewayUrl, actor.key), kind) : undefined;
    if (spare !== undefined) spares.set(kind, spare);
  }
  // Only a running run has a tail.
  const index = method.name.includes("RunTailService") ? 1 : 0;
  return ownRequest(method, (kind) => spares.get(kind) ?? actor.owns[kind][index] ?? actor.owns[kind][0] ?? "");
}

const NO_STATE: VictimState = { pageToken: undefined, etags: [], lastSeq: "0" };

export function mayCall({ method }: MeshMethod, actor: Actor): boolean {
  return grantsAny(actor.principal.scopes, authRule(method).anyScope);
}

function turnOf({ method, readOnly }: MeshMethod): number {
  if (readOnly) return 0;
  return method.input.fields.some(({ name }) => name === "message") ? 2 : 1;
}
