import type { DescField, Message } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { reasonOf } from "#platform/rpc/errors.ts";
import { canonicalName, type HttpFailure } from "../error-body.ts";
import { parseJson } from "../json/parse.ts";
import { printJson } from "../json/value.ts";
import type { MessageWriter } from "../json/write-message.ts";
import type { SsePlan } from "./plan.ts";

/** A comment: keeps the connection alive and reaches no event listener (WHATWG HTML §9.2.6). */
export const HEARTBEAT = ": heartbeat\n\n";

/** Embedded JSON comes from models; deeper or larger numbers than this are shown as text. */
const EMBEDDED_LIMITS = { maxDepth: 64, maxNumberLength: 512 };

/** One streamed message as an event; empty when it has nothing that this gateway knows to show. */
export function eventFrame(
  plan: SsePlan,
  writer: MessageWriter,
  message: Message,
  root: ReflectMessage["desc"],
): string {
  const whole = reflect(root, message, false);
  const data = follow(whole, plan.data);
  if (data === undefined) return "";
  const member = plan.oneof && data.oneofCase(plan.oneof);
  if (plan.flat && member === undefined) return "";
  const text =
    plan.flat && member !== undefined
      ? flatData(plan, writer, data, member)
      : JSON.stringify(writer.write(data.desc, data.message));
  return frame(idOf(plan, whole), member?.name, text);
}

/** An error that came after the stream had begun; without an id, so that a client resumes where it was. */
export function errorFrame(plan: SsePlan, { error, body }: HttpFailure): string {
  if (!plan.flat) return frame(undefined, "error", JSON.stringify(body));
  const flat = {
    type: "error",
    code: canonicalName(error.code),
    reason: reasonOf(error) ?? "",
    message: error.rawMessage,
    details: body.error.details,
  };
  return frame(undefined, "error", JSON.stringify(flat));
}

/** `{"type": member, …fields of the event, …fields of the member}`, with embedded JSON as JSON. */
function flatData(plan: SsePlan, writer: MessageWriter, data: ReflectMessage, member: DescField): string {
  const parts = [`"type":${JSON.stringify(member.name)}`];
  for (const field of data.fields) {
    if (field.oneof === plan.oneof) continue;
    parts.push(`${JSON.stringify(field.name)}:${JSON.stringify(writer.field(data, field))}`);
  }
  if (member.fieldKind === "message") {
    const inner = data.get(member);
    const json = writer.fields(inner.desc, inner.message);
    for (const field of inner.fields) {
      const value = json[field.name];
      if (value === undefined) continue;
      const embeddedAs = plan.embedded.get(field);
      parts.push(
        embeddedAs === undefined
          ? `${JSON.stringify(field.name)}:${JSON.stringify(value)}`
          : `${JSON.stringify(embeddedAs)}:${embedded(String(value))}`,
      );
    }
  }
  return `{${parts.join(",")}}`;
}

/** The text's value on one line, digit for digit; no text is `null`, and text that is no JSON stays a string. */
function embedded(text: string): string {
  if (text === "") return "null";
  try {
    return printJson(parseJson(text, EMBEDDED_LIMITS));
  } catch {
    return JSON.stringify(text);
  }
}

function idOf({ id }: SsePlan, whole: ReflectMessage): string | undefined {
  const field = id.at(-1);
  const owner = field && follow(whole, id.slice(0, -1));
  if (field === undefined || owner === undefined || !owner.isSet(field)) return undefined;
  return String(owner.get(field));
}

function follow(message: ReflectMessage, fields: readonly DescField[]): ReflectMessage | undefined {
  let at = message;
  for (const field of fields) {
    if (field.fieldKind !== "message" || !at.isSet(field)) return undefined;
    at = at.get(field);
  }
  return at;
}

/** The data is JSON on one line; an id must not break the frame (a line break) nor be ignored (NUL). */
function frame(id: string | undefined, event: string | undefined, data: string): string {
  const lines: string[] = [];
  // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly these are to go
  if (id !== undefined) lines.push(`id: ${id.replace(/[\r\n\u0000]/g, "")}`);
  if (event !== undefined) lines.push(`event: ${event}`);
  lines.push(`data: ${data}`);
  return `${lines.join("\n")}\n\n`;
}
