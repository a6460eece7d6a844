import { setTimeout as sleep } from "node:timers/promises";
import type { JsonObject } from "@bufbuild/protobuf";
import { MODULES } from "#mesh/modules.ts";
import { createHopSigner } from "#platform/rpc/hop-token.ts";
import { deriveServiceKeys } from "#platform/rpc/service-keys.ts";
import { rootSecret } from "#platform/secrets/root-secret.ts";
import { type Answer, answerOf } from "#tests/conformance/wire/answers.ts";
import { FACES, type Face, messageOf, requestOf } from "#tests/conformance/wire/faces.ts";
import { H2Client } from "#tests/conformance/wire/h2-client.ts";
import { type MeshMethod, restRoute } from "#tests/conformance/wire/methods.ts";
import type { Actor } from "./actors.ts";
import type { MeshOfTwo } from "./mesh-of-two.ts";

/** A way in for a credential. */
export interface Door {
  readonly name: string;
  readonly by: "key" | "hop token";
  readonly face: Face;
  /** Whether the method can be reached here at all. */
  serves(method: MeshMethod): boolean;
  /** Undefined when the face cannot say this request: a path without a value for its variable. */
  ask(actor: Actor, method: MeshMethod, request: JsonObject): Promise<Answer | undefined>;
}

/** The door of this kind. */
export function doorOf(doors: readonly Door[], by: Door["by"], face: Face): Door {
  const found = doors.find((door) => door.by === by && door.face === face);
  if (found === undefined) throw new Error(`there is no door for a ${by} over ${face}`);
  return found;
}

/** Time without a byte after which an answer counts as one that does not end: the stream of a running run. */
const QUIET_MS = 700;

/** API key over every face of the gateway; hop token over gRPC at the services themselves. */
export function openDoors(mesh: MeshOfTwo): { doors: readonly Door[]; close(): Promise<void> } {
  const gateway = new H2Client(mesh.gatewayUrl, 4);
  const services = new H2Client(mesh.servicesUrl, 4);
  const keys = deriveServiceKeys(rootSecret([mesh.secret]), Object.keys(MODULES));
  const signer = createHopSigner("gateway", keys);
  const ask = async (client: H2Client, face: Face, bearer: string, { method }: MeshMethod, json: JsonObject) => {
    const headers = { authorization: `Bearer ${bearer}` };
    const request = requestOf(face, method, messageOf(method.input, json), headers);
    return (
      request && answerOf(face, method, await client.send(request, QUIET_MS * (method.methodKind === "unary" ? 20 : 1)))
    );
  };
  const byKey = (face: Face): Door => ({
    name: `API key over ${face}`,
    by: "key",
    face,
    serves: (method) => method.public && (face !== "rest" || restRoute(method.method) !== undefined),
    ask: (actor, method, request) => patiently(() => ask(gateway, face, actor.key, method, request)),
  });
  const byHopToken = (face: Face): Door => ({
    name: `hop token over ${face}`,
    by: "hop token",
    face,
    serves: () => true,
    ask: async (actor, method, request) => {
      const token = await signer.sign(actor.principal, method.module);
      return patiently(() => ask(services, face, token, method, request));
    },
  });
  return {
    doors: [...FACES.map(byKey), byHopToken("grpc")],
    async close() {
      await gateway[Symbol.asyncDispose]();
      await services[Symbol.asyncDispose]();
    },
  };
}

/** Asks again while a run of the caller's own is still at work in its session. The victim's never ends meanwhile. */
async function patiently(ask: () => Promise<Answer | undefined>): Promise<Answer | undefined> {
  for (let tries = 0; ; tries++) {
    const answer = await ask();
    if (answer?.reason !== "SESSION_BUSY" || tries === 40) return answer;
    await sleep(25);
  }
}
