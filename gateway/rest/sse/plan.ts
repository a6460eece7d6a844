import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescOneof,
  getOption,
  hasOption,
} from "@bufbuild/protobuf";
import { embedded_json } from "#gen/agentmesh/common/v1/json_option_pb.ts";
import { sse } from "#gen/agentmesh/common/v1/sse_option_pb.ts";

/** How one streaming method becomes Server-Sent Events; compiled from its `(agentmesh.common.v1.sse)` option. */
export interface SsePlan {
  /** The fields that lead to the `id:` value; empty for none. */
  readonly id: readonly DescField[];
  /** The fields that lead to the message of the `data:` line; empty for the whole response. */
  readonly data: readonly DescField[];
  readonly dataDesc: DescMessage;
  /** The oneof of the data message whose member names the event. */
  readonly oneof: DescOneof | undefined;
  /** The request field that takes the `Last-Event-ID` header. */
  readonly resume: DescField | undefined;
  /** True: `{"type": member, …fields}` instead of the message. */
  readonly flat: boolean;
  /** In flat events: string fields of the members that hold JSON text, with the name that the parsed value is shown under. */
  readonly embedded: ReadonlyMap<DescField, string>;
}

/** Throws an error that says what is wrong with the option. */
export function compileSse(method: DescMethod): SsePlan {
  if (!hasOption(method, sse)) fail("a stream of responses needs the (agentmesh.common.v1.sse) option for REST");
  const rule = getOption(method, sse);
  const data = walk(method.output, rule.data, "data");
  const last = data.at(-1);
  const dataDesc = last === undefined ? method.output : (last.message ?? fail(`data: ${rule.data} is not a message`));
  const id = walk(method.output, rule.id, "id");
  if (id.length > 0 && id.at(-1)?.fieldKind !== "scalar") fail(`id: ${rule.id} is not a scalar`);
  const oneof =
    rule.eventOneof === ""
      ? undefined
      : (dataDesc.oneofs.find(({ name }) => name === rule.eventOneof) ?? fail(`no oneof ${rule.eventOneof}`));
  const plan = {
    id,
    data,
    dataDesc,
    oneof,
    resume: rule.resumeField === "" ? undefined : resumeField(method.input, rule.resumeField),
    flat: rule.flat,
  };
  return { ...plan, embedded: rule.flat ? flatFields(dataDesc, oneof ?? fail("flat needs event_oneof")) : new Map() };
}

/** Flat events put the fields of two messages and `type` into one object: no two may share a name. */
function flatFields(data: DescMessage, oneof: DescOneof): Map<DescField, string> {
  const embedded = new Map<DescField, string>();
  const outer = ["type", ...data.fields.filter((field) => field.oneof !== oneof).map(({ name }) => name)];
  for (const member of oneof.fields) {
    const inner = member.message ?? fail(`flat: ${member.name} is not a message`);
    const names = [...outer];
    for (const field of inner.fields) {
      const renamed = hasOption(field, embedded_json) ? getOption(field, embedded_json) : "";
      if (renamed !== "") embedded.set(field, renamed);
      names.push(renamed === "" ? field.name : renamed);
    }
    if (new Set(names).size !== names.length) fail(`flat: two fields of ${member.name} would have the same name`);
  }
  return embedded;
}

function walk(desc: DescMessage, path: string, what: string): DescField[] {
  const fields: DescField[] = [];
  if (path === "") return fields;
  let at: DescMessage | undefined = desc;
  for (const name of path.split(".")) {
    const field: DescField = at?.fields.find((one) => one.name === name) ?? fail(`${what}: ${path} leads nowhere`);
    if (field.fieldKind === "list" || field.fieldKind === "map") fail(`${what}: ${path} leads through a list or map`);
    fields.push(field);
    at = field.message;
  }
  return fields;
}

function resumeField(input: DescMessage, name: string): DescField {
  const field = input.fields.find((one) => one.name === name) ?? fail(`resume_field: no field ${name}`);
  return field.fieldKind === "scalar" ? field : fail(`resume_field: ${name} is not a scalar`);
}

function fail(problem: string): never {
  throw new Error(problem);
}
