import { type DescField, type DescMessage, type DescMethod, getOption, type JsonObject } from "@bufbuild/protobuf";
import { FieldBehavior, field_behavior } from "#gen/google/api/field_behavior_pb.ts";

/** What a field of a request names. */
export type Kind =
  | "tenant"
  | "session"
  | "run"
  | "agent"
  | "key"
  | "user"
  | "approval"
  | "message"
  | "page_token"
  | "etag"
  | "cursor"
  | "request_id"
  | "inert";

/**
 * What the fields that look like ids name. A field that looks like one and is not here fails the test: whoever adds it
 * says what it names, and the probes follow. `inert` is what no lookup of a tenant's data takes: say why.
 */
const KINDS: Readonly<Record<string, Kind>> = {
  tenant_id: "tenant",
  session_id: "session",
  external_id: "session",
  forked_from_session_id: "session",
  message_id: "message",
  forked_from_message_id: "message",
  run_id: "run",
  approval_id: "approval",
  active_run_id: "run",
  agent_id: "agent",
  api_key_id: "key",
  user_id: "user",
  end_user_id: "user",
  page_token: "page_token",
  etag: "etag",
  after_seq: "cursor",
  request_id: "request_id",
  // Tools are the installation's own, the same for every tenant.
  tool_id: "inert",
  // The model's name for a call; part of what is recorded, never looked up by itself.
  call_id: "inert",
  // Kept with the agent or tenant; there is no service of templates yet that would look it up.
  prompt_template_id: "inert",
  // A whole secret, not an id; auth's own tests attack it.
  credential: "inert",
};

const LOOKS_LIKE_ID = /(^|_)(id|ids|token|etag|seq|cursor|credential|uid|uuid)$/;

/** A field of a request that names something: its path in proto names. */
export interface IdField {
  readonly path: readonly string[];
  readonly kind: Kind;
  readonly required: boolean;
}

/** The id fields of a method's request, those inside its resources too. Throws for one that is not classified. */
export function idFields(method: DescMethod): IdField[] {
  return walk(method.input, [], (field) => {
    const known = KINDS[field.name];
    if (known === undefined && LOOKS_LIKE_ID.test(field.name)) {
      throw new Error(`${method.parent.typeName}/${method.name}: say in KINDS what ${field.name} names`);
    }
    return known;
  });
}

function walk(
  message: DescMessage,
  path: readonly string[],
  kindOf: (field: DescField) => Kind | undefined,
): IdField[] {
  return message.fields.flatMap((field): IdField[] => {
    const here = [...path, field.name];
    if (field.fieldKind === "message" && isOurs(field.message) && here.length <= 3) {
      return walk(field.message, here, kindOf);
    }
    const kind = kindOf(field);
    if (kind === undefined || kind === "inert") return [];
    return [{ path: here, kind, required: path.length === 0 && behaves(field, FieldBehavior.REQUIRED) }];
  });
}

/** What stands in a request beside its ids, by field or by message and field. A new required field needs a line here. */
const SAMPLES: Readonly<Record<string, string | readonly string[] | (() => string)>> = {
  message: "hello there",
  title: "a title",
  name: uniqueName,
  scopes: ["sessions:read"],
  tool: "todo",
  arguments_json: '{"action":"list"}',
  // Of what the approvals of actors.ts are about.
  arguments_sha256: "584e7600815c4c752e42f8f3c00aa4bf1597f13bb08ed5de443b33097e1a1751",
  decision: "APPROVAL_DECISION_DENY",
  call_id: "call_1",
  tool_id: "todo",
  credential: "am_live_x",
  "ModelCredential.llm_provider": "openai",
  "DeleteModelCredentialRequest.llm_provider": "openai",
  "RevealModelCredentialRequest.llm_provider": "openai",
  api_key: "sk-probe",
};

let names = 0;

function uniqueName(): string {
  names++;
  return `probe-${names}`;
}

/** A request without ids that is otherwise valid. */
export function baseRequest(method: DescMethod): JsonObject {
  return fill(method.input, 0);
}

function fill(message: DescMessage, depth: number): JsonObject {
  const object: JsonObject = {};
  for (const field of message.fields) {
    const sample = SAMPLES[`${message.name}.${field.name}`] ?? SAMPLES[field.name];
    if (sample !== undefined && field.fieldKind !== "message") {
      object[field.name] = typeof sample === "function" ? sample() : structuredClone(sample as string);
    } else if (field.fieldKind === "message" && isOurs(field.message) && depth === 0) {
      object[field.name] = fill(field.message, depth + 1);
    }
  }
  return object;
}

/** Sets a field of a request by its path. */
export function setField(object: JsonObject, path: readonly string[], value: string): void {
  const [first = "", ...rest] = path;
  if (rest.length === 0) {
    object[first] = value;
    return;
  }
  object[first] ??= {};
  setField(object[first] as JsonObject, rest, value);
}

function isOurs(message: DescMessage): boolean {
  return message.typeName.startsWith("agentmesh.");
}

function behaves(field: DescField, wanted: FieldBehavior): boolean {
  return getOption(field, field_behavior).includes(wanted);
}
