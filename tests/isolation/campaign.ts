import assert from "node:assert/strict";
import { authRule } from "#platform/rpc/method-rules.ts";
import { grantsAny } from "#platform/rpc/scopes.ts";
import { type MeshMethod, meshMethods } from "#tests/conformance/wire/methods.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import {
  type Actor,
  type Actors,
  createActors,
  failedRun,
  fresh,
  liveRun,
  type OwnedKind,
  putModelCredential,
  putProfile,
  snapshot,
} from "./actors.ts";
import { leakIn, secretsOf } from "./compare.ts";
import { type Door, doorOf } from "./doors.ts";
import { idFields } from "./id-fields.ts";
import type { MeshOfTwo } from "./mesh-of-two.ts";
import { ownRequest, probesOf, type VictimState } from "./probes.ts";

export const METHODS = meshMethods();

/** Sends every probe of every attacker through every door, against tenants of its own. */
export async function probeAll(mesh: MeshOfTwo, doors: readonly Door[]): Promise<{ probes: number; leaks: string[] }> {
  const actors = await createActors(mesh);
  const { victim, neighbour, strangerMachine, strangerUser } = actors;
  const states = await victimStates(mesh, doors, actors);
  const before = await snapshot(mesh.gatewayUrl, victim);
  const leaks: string[] = [];
  let probes = 0;
  const byAttacker = async (attacker: Actor, methods: readonly MeshMethod[]) => {
    const secrets = secretsOf(victim, attacker);
    for (const method of methods) {
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
  // first, and runs last, since one in a session whose UUID is foreign makes the attacker a session of that UUID; so do
  // what puts a resource under a name that its caller chooses.
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
  const door = doorOf(doors, "key", "grpc");
  const etags = await readEtags(mesh, victim);
  const states = new Map<string, VictimState>();
  for (const method of METHODS) {
    const pages = idFields(method.method).some(({ kind }) => kind === "page_token");
    const actor = mayCall(method, victim) ? victim : strangerMachine;
    // Only what is asked is made: a run that is still at work would be another one when the snapshots are compared.
    const request = pages ? { ...(await ownOf(mesh, method, actor)), page_size: 1 } : undefined;
    const answer = request && (await door.ask(actor, method, request));
    const token = (answer?.messages[0] as { next_page_token?: string } | undefined)?.next_page_token;
    if (pages && mayCall(method, victim)) assert.ok(token, `${method.name} has no second page to probe with`);
    states.set(method.name, { pageToken: token, etags: etagsFor(method, etags), lastSeq: "3" });
  }
  return states;
}

/** The versions of what the victim has, by the name of the resource in its methods. */
async function readEtags(mesh: MeshOfTwo, { key, owns }: Actor): Promise<ReadonlyMap<string, string>> {
  const rest = new RestClient(mesh.gatewayUrl, key);
  const paths = {
    Agent: `/api/v1/tenants/me/agents/${owns.agent[0]}`,
    Session: `/api/v1/sessions/${owns.session[0]}`,
    Tenant: `/api/v1/tenants/${owns.tenant[0]}`,
  };
  const etags = new Map<string, string>();
  for (const [resource, path] of Object.entries(paths)) {
    const { etag } = (await rest.call("GET", path)).body as { etag?: string };
    assert.ok(etag, `${path} has no etag to probe with`);
    etags.set(resource, etag);
  }
  return etags;
}

/** What changes a resource is probed with the version that it has; methods without a field for one have none. */
function etagsFor({ method }: MeshMethod, etags: ReadonlyMap<string, string>): string[] {
  const etag = etags.get(method.name.replace(/^(Update|Delete)/, ""));
  return etag === undefined ? [...etags.values()] : [etag];
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
  if (method.method.name === "RetryRun" && mayCall(method, actor)) {
    spares.set("run", await failedRun(new RestClient(mesh.gatewayUrl, actor.key)));
  }
  if (method.method.name === "SendRunInput" && mayCall(method, actor)) {
    spares.set("run", await liveRun(new RestClient(mesh.gatewayUrl, actor.key)));
  }
  if (method.method.name === "DeleteUserProfile" && mayCall(method, actor)) {
    await putProfile(new RestClient(mesh.gatewayUrl, actor.key), actor.owns.user[0] ?? "", "spare");
  }
  if (method.method.name === "DeleteModelCredential" && mayCall(method, actor)) {
    await putModelCredential(new RestClient(mesh.gatewayUrl, actor.key));
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
  if (method.name.startsWith("Put")) return 2;
  return method.input.fields.some(({ name }) => name === "message") ? 2 : 1;
}
