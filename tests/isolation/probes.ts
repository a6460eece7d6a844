import type { DescMethod, JsonObject } from "@bufbuild/protobuf";
import { type MeshMethod, restRoute } from "#tests/conformance/wire/methods.ts";
import { type Actor, missingLike, type OwnedKind } from "./actors.ts";
import { baseRequest, type IdField, idFields, type Kind, setField } from "./id-fields.ts";

/** A request that names something foreign, and its twin that names nothing that exists. */
export interface Probe {
  readonly what: string;
  readonly foreign: JsonObject;
  readonly missing: JsonObject;
  /** What differs between them, by the placeholder that stands for it in a comparison. */
  readonly swapped: readonly { readonly foreign: string; readonly missing: string }[];
}

/** What the victim has that belongs to one method: a token of its list's second page, the versions of its resources. */
export interface VictimState {
  readonly pageToken: string | undefined;
  readonly etags: readonly string[];
  readonly lastSeq: string;
}

type Choice = "own" | "none" | { readonly foreign: string };

const SHARED_IN_TENANT: ReadonlySet<Kind> = new Set(["tenant", "agent"]);

/** The probes of one method by one attacker. */
export function probesOf(
  { method }: MeshMethod,
  attacker: Actor,
  victim: Actor,
  { pageToken, etags, lastSeq }: VictimState,
): Probe[] {
  const fields = idFields(method);
  const sameTenant = attacker.principal.tenantId === victim.principal.tenantId;
  // A list that belongs to the whole tenant has the same pages for all of its users.
  const sharedList = !fields.some(({ kind }) => kind === "run" || kind === "session" || kind === "user");
  const foreignOf = ({ kind }: IdField): readonly string[] => {
    if (kind === "page_token") return pageToken === undefined || (sameTenant && sharedList) ? [] : [pageToken];
    if (!isOwned(kind) || (sameTenant && SHARED_IN_TENANT.has(kind))) return [];
    return victim.owns[kind];
  };
  const named = fields.filter((field) => foreignOf(field).length > 0);
  const probes = new Map<string, Probe>();
  for (const field of named) {
    for (const value of foreignOf(field)) {
      for (const others of ["own", "none", "foreign"] as const) {
        const choices = new Map<IdField, Choice>(
          fields.map((other) => {
            if (other === field) return [other, { foreign: value }];
            const [first] = foreignOf(other);
            if (others === "foreign" && first !== undefined) return [other, { foreign: first }];
            return [other, others === "none" && !other.required ? "none" : "own"];
          }),
        );
        for (const extra of extras(fields, etags, lastSeq)) {
          const probe = probeOf(method, choices, extra, attacker);
          probes.set(JSON.stringify(probe.foreign).replaceAll(/probe-\d+/g, ""), probe);
        }
      }
    }
  }
  return [...probes.values()];
}

/** Values of the victim's that go along with a probed id: its version, the place in its stream. */
function extras(fields: readonly IdField[], etags: readonly string[], lastSeq: string): [IdField, string][][] {
  const etag = fields.find(({ kind }) => kind === "etag");
  const cursor = fields.find(({ kind }) => kind === "cursor");
  return [
    [],
    ...(etag === undefined ? [] : etags.map((value): [IdField, string][] => [[etag, value]])),
    ...(cursor === undefined ? [] : [[[cursor, lastSeq]] satisfies [IdField, string][]]),
  ];
}

function probeOf(
  method: DescMethod,
  choices: ReadonlyMap<IdField, Choice>,
  extra: readonly [IdField, string][],
  attacker: Actor,
): Probe {
  // Two requests, so that names which must be unique are.
  const [foreign, missing] = [baseRequest(method), baseRequest(method)];
  const swapped = new Map<string, string>();
  const said: string[] = [];
  for (const [{ path, kind }, choice] of choices) {
    if (typeof choice === "object") {
      const other = swapped.get(choice.foreign) ?? missingLike(choice.foreign);
      swapped.set(choice.foreign, other);
      setField(foreign, path, choice.foreign);
      setField(missing, path, other);
      said.push(`${path.join(".")} foreign`);
    } else if (choice === "own" && isOwned(kind)) {
      const own = attacker.owns[kind][0] ?? "";
      setField(foreign, path, own);
      setField(missing, path, own);
    }
  }
  for (const [{ path }, value] of extra) {
    setField(foreign, path, value);
    setField(missing, path, value);
    said.push(`${path.join(".")} ${value}`);
  }
  const pairs = [...swapped].map(([one, other]) => ({ foreign: one, missing: other }));
  return { what: `${method.name} by ${attacker.name}: ${said.join(", ")}`, foreign, missing, swapped: pairs };
}

/** The request with everything the actor's own: what must succeed, or a probe's refusal says nothing. */
export function ownRequest({ method }: MeshMethod, owned: (kind: OwnedKind) => string): JsonObject {
  const request = baseRequest(method);
  for (const { path, kind, required } of idFields(method)) {
    const inPath = path.length > 1 && (restRoute(method)?.template.includes(`{${path.join(".")}}`) ?? false);
    const creates = method.name.startsWith("Create");
    // Where it may be left out, a list is of all runs.
    const subject = kind === "run" && path.length === 1 && !method.name.startsWith("List");
    if (isOwned(kind) && (required || subject || (inPath && !creates))) setField(request, path, owned(kind));
  }
  return request;
}

export function isOwned(kind: Kind): kind is OwnedKind {
  return ["tenant", "session", "run", "agent", "key", "user", "approval", "message"].includes(kind);
}
