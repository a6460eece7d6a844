import { type DescField, type DescMessage, equals, type Message } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { type GivenField, type ReadOptions, readMessage, textAsJson } from "./json/read-message.ts";
import { Mismatch, readEnum, readScalar } from "./json/read-scalar.ts";
import { isWrapper, wellKnownReader } from "./json/read-well-known.ts";
import type { Json } from "./json/value.ts";
import type { Problems } from "./problems.ts";

/** Where a value came from, as a problem's text names it. */
type Source = "body" | "path" | "query" | `${string} header`;

/**
 * A request message in the making. Every field remembers which part of the HTTP request gave it: the same value twice is
 * harmless, two different ones are FIELD_CONFLICT and never a silent choice.
 */
export class RequestFields {
  readonly message: ReflectMessage;
  readonly #problems: Problems;
  readonly #sources = new Map<string, Source>();
  /** What the body gave, deepest fields only, null included. */
  readonly inBody: GivenField[] = [];

  constructor(input: DescMessage, problems: Problems) {
    this.message = reflect(input);
    this.#problems = problems;
  }

  /** Reads JSON into the message itself, or into one field of it. */
  readBody(json: Json, field: DescField | undefined, aliases: ReadOptions["aliases"]): void {
    const options: ReadOptions = {
      problems: this.#problems,
      ...(aliases === undefined ? {} : { aliases }),
      given: (given) => {
        this.inBody.push(given);
        if (!given.isNull) this.#sources.set(given.path, "body");
      },
    };
    if (field?.message === undefined) return void readMessage(this.message, json, options, { path: "", fields: [] });
    const inner = reflect(field.message);
    readMessage(inner, json, options, { path: field.name, fields: [field] });
    this.message.set(field, inner);
  }

  /** True when some part of the request gave the field. */
  has(fields: readonly DescField[]): boolean {
    return this.#sources.has(pathOf(fields));
  }

  /** Sets one field from text. */
  set(fields: readonly DescField[], text: string, source: Source, name = pathOf(fields)): void {
    const field = fields.at(-1);
    if (field === undefined) return;
    const value = readText(field, text);
    if (value instanceof Mismatch) return void this.#problems.add("FIELD_INVALID", name, `must be ${value.expected}`);
    const path = pathOf(fields);
    const other = this.#otherChoice(fields);
    if (other !== undefined) {
      return void this.#problems.add("FIELD_CONFLICT", name, `cannot be given together with ${other.name}`);
    }
    const owner = this.#owner(fields);
    if (field.fieldKind === "list") {
      owner.get(field).add(value);
      return;
    }
    const before = this.#sources.get(path);
    if (before === undefined) {
      owner.set(field, value);
      this.#sources.set(path, source);
    } else if (!sameValue(owner.get(field), value)) {
      const problem = before === source ? `is given twice in the ${source}` : `differs between ${before} and ${source}`;
      this.#problems.add("FIELD_CONFLICT", name, problem);
    }
  }

  /** The member that was given already of a oneof that the path goes through. */
  #otherChoice(fields: readonly DescField[]): DescField | undefined {
    let at: ReflectMessage | undefined = this.message;
    for (const field of fields) {
      const chosen: DescField | undefined = field.oneof && at?.oneofCase(field.oneof);
      if (chosen !== undefined && chosen !== field) return chosen;
      at = field.fieldKind === "message" && at?.isSet(field) ? at.get(field) : undefined;
    }
    return undefined;
  }

  /** The message that holds the last field; those on the way are made. */
  #owner(fields: readonly DescField[]): ReflectMessage {
    let at = this.message;
    for (const field of fields.slice(0, -1)) {
      if (field.fieldKind !== "message") throw new Error(`${field} holds no fields`);
      if (!at.isSet(field)) at.set(field, reflect(field.message));
      at = at.get(field);
    }
    return at;
  }
}

function pathOf(fields: readonly DescField[]): string {
  return fields.map(({ name }) => name).join(".");
}

const TEXTUAL: ReadonlySet<string> = new Set([
  "google.protobuf.Timestamp",
  "google.protobuf.Duration",
  "google.protobuf.FieldMask",
]);

function readText(field: DescField, text: string): unknown {
  const json = textAsJson(field, text);
  const { message } = field;
  if (field.fieldKind === "map" || (message !== undefined && !TEXTUAL.has(message.typeName) && !isWrapper(message))) {
    return new Mismatch("given in the body, not here");
  }
  if (message !== undefined) {
    const value = wellKnownReader(message)?.(message, json);
    return value === undefined || value instanceof Mismatch ? value : reflect(message, value);
  }
  if (field.enum !== undefined) return readEnum(field.enum, json);
  return field.scalar === undefined ? new Mismatch("absent") : readScalar(field.scalar, json);
}

function sameValue(a: unknown, b: unknown): boolean {
  if (isReflected(a) && isReflected(b)) return equals(a.desc, a.message, b.message);
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.from(a).equals(b);
  return Object.is(a, b);
}

function isReflected(value: unknown): value is { desc: DescMessage; message: Message } {
  return typeof value === "object" && value !== null && "desc" in value;
}
