import { type CelInput, CelScalar, celEnv, celFunc, isCelError, listType, parse, plan, run } from "@bufbuild/cel";
import { assertParsable, assertWithinLimits, ConditionError } from "./condition-rules.ts";

/** What a condition can speak of. Nothing else can be named in it. */
export interface ConditionFacts {
  /** What the caller gave along with the request: JSON. */
  readonly context: object;
  readonly message: { readonly length: number; readonly has_images: boolean; readonly language: string };
  readonly session: { readonly message_count: number };
  readonly tenant: { readonly tier: string };
  readonly agent: { readonly id: string };
}

/** A compiled condition. */
export interface Condition {
  readonly source: string;
  /** Whether it holds. An error at run time, such as a key that `context` lacks, and any value but true count as false. */
  holds(facts: ConditionFacts): boolean;
}

/** Compiled conditions that are kept, the least recently used leave first. */
const MAX_KEPT = 256;
/** Values of `context` that conditions see; of a larger context they see nothing. */
const MAX_CONTEXT_VALUES = 5_000;
const MAX_CONTEXT_DEPTH = 32;
/** Characters of a text in `context` that conditions see. */
const MAX_CONTEXT_TEXT = 2_000;

const kept = new Map<string, Condition>();

/** Text and lists are not joined in conditions: what is joined twenty times is large, and costs as much to search. */
const noJoining = [CelScalar.STRING, CelScalar.BYTES, listType(CelScalar.DYN)].map((type) =>
  celFunc("_+_", [type, type], type, () => {
    throw new Error("only numbers can be added");
  }),
);
const environment = celEnv({ funcs: noJoining });

/**
 * Compiles a condition in CEL (the Common Expression Language, cel-spec 0.25) over `context`, `message`, `session`, `tenant`
 * and `agent`; the empty one always holds. Its cost is bounded: at most 2 000 characters, 64 opening
 * brackets and 8 constant patterns (RE2), no macros but `has`, no joining of texts. Throws {@link ConditionError}.
 */
export function compileCondition(source: string): Condition {
  const known = kept.get(source);
  if (known !== undefined) kept.delete(source);
  const condition = known ?? compile(source);
  kept.set(source, condition);
  for (const oldest of kept.keys()) {
    if (kept.size <= MAX_KEPT) break;
    kept.delete(oldest);
  }
  return condition;
}

function compile(source: string): Condition {
  if (source.trim() === "") return { source, holds: () => true };
  const evaluate = planned(source);
  return {
    source,
    holds(facts) {
      try {
        return evaluate(bindings(facts)) === true;
      } catch {
        return false;
      }
    },
  };
}

function planned(source: string) {
  assertParsable(source);
  try {
    const parsed = parse(source);
    assertWithinLimits(source, parsed, invalidPattern);
    return plan(environment, parsed);
  } catch (error) {
    throw conditionError(error, source);
  }
}

/** What is wrong with a pattern, if anything. */
function invalidPattern(pattern: string): string | undefined {
  const result = run("''.matches(pattern)", { pattern });
  return isCelError(result) ? result.message : undefined;
}

function conditionError(error: unknown, source: string): ConditionError {
  if (error instanceof ConditionError) return error;
  // The parser is recursive.
  if (error instanceof RangeError) return new ConditionError("is nested too deeply");
  const offset = (error as { location?: { start?: { offset?: number } } }).location?.start?.offset;
  if (offset === undefined) return new ConditionError("is not a CEL expression");
  const [found] = source.slice(offset);
  return ConditionError.at(source, offset, found === undefined ? "ends too early" : "is not understood from here on");
}

function bindings({ context, message, session, tenant, agent }: ConditionFacts): Record<string, CelInput> {
  return {
    context: celContext(context),
    message: new Map<string, CelInput>([
      ["length", BigInt(message.length)],
      ["has_images", message.has_images],
      ["language", message.language],
    ]),
    session: new Map([["message_count", BigInt(session.message_count)]]),
    tenant: new Map([["tier", tenant.tier]]),
    agent: new Map([["id", agent.id]]),
  };
}

/** JSON as CEL sees it: numbers are doubles, as in google.protobuf.Value. */
function celContext(context: object): CelInput {
  let values = 0;
  const convert = (value: unknown, depth: number): CelInput => {
    if (++values > MAX_CONTEXT_VALUES || depth > MAX_CONTEXT_DEPTH) throw new RangeError("the context is too large");
    if (typeof value === "string") return value.slice(0, MAX_CONTEXT_TEXT);
    if (typeof value === "number" || typeof value === "boolean") return value;
    if (Array.isArray(value)) return value.map((one) => convert(one, depth + 1));
    if (typeof value !== "object" || value === null) return null;
    // A map of its own: the library takes an object with a key "constructor" for something else.
    return new Map(
      Object.entries(value).map(([key, one]) => [key.slice(0, MAX_CONTEXT_TEXT), convert(one, depth + 1)]),
    );
  };
  try {
    return convert(context, 0);
  } catch {
    return new Map();
  }
}
