import type { Call } from "#platform/rpc/call.ts";
import { isScope } from "#platform/rpc/scopes.ts";
import type { Inject, Provider } from "./provider.ts";
import { type CheckArguments, compileArguments } from "./tool-arguments.ts";

/** How dangerous a call is: `read_only` reads or computes, `write` can be undone, `destructive` cannot. */
export type Risk = "read_only" | "write" | "destructive";

export type OnUnknown = "report" | "ask";

/** One piece of what a tool shows the model. */
export type ToolContent = { type: "text"; text: string } | { type: "image"; mediaType: string; data: Uint8Array };

/** A tool asks for people to take the conversation over. */
export interface Escalation {
  /** Why, for those who take over. */
  readonly reason: string;
  readonly priority: "low" | "normal" | "high";
}

/** What a tool answers: text, or a structured value (shown as JSON unless `text` says it better), or content parts. */
export type ToolOutput =
  | string
  | { readonly structured: unknown; readonly text?: string; readonly escalation?: Escalation }
  | { readonly content: readonly ToolContent[]; readonly structured?: unknown; readonly escalation?: Escalation };

/** What a tool is told of its call. Never part of its schema, and nothing that the model says can change it. */
export interface ToolContext {
  /** On whose behalf. */
  readonly call: Call;
  readonly callId: string;
  readonly runId: string;
  readonly sessionId: string;
  readonly agentId: string;
  readonly endUserId: string;
  /** The same whenever this call is repeated (`run_id/call_id`); empty for a call that belongs to no run. */
  readonly requestKey: string;
  /** Shows a sign of progress; `fraction` is between 0 and 1, 0 when unknown. Cheap: only the newest one is kept. */
  progress(message: string, fraction?: number): void;
}

export interface ToolDefinition<Args, Injected = Record<never, never>> {
  /** Letters, digits, `_` and `-`, 64 at most. */
  readonly name: string;
  /** What it does, as models read it. */
  readonly description: string;
  /** JSON Schema (2020-12) of the arguments; an object. */
  readonly input: Readonly<Record<string, unknown>>;
  readonly risk: Risk;
  /** True: calls of one turn may run together. */
  readonly concurrencySafe: boolean;
  /** True: a call may be repeated with the same request key. */
  readonly idempotent: boolean;
  /** Longest execution, providers included. */
  readonly timeoutMs: number;
  /** Most bytes of text that the model is shown, in UTF-8; the rest can be read page by page. */
  readonly maxOutputBytes: number;
  /** How many of its newest results the model keeps seeing in full; older ones can be read again. Default: all. */
  readonly ephemeral?: number;
  /**
   * What happens when a call was broken off and nobody knows whether it took effect: the model is told (`report`, the
   * default), or people are asked, and the run waits for them (`ask`).
   */
  readonly onUnknown?: OnUnknown;
  /** Scopes that the caller's credential must have besides those of the run itself. */
  readonly permissions?: readonly string[];
  /** Most calls a minute of one tenant. Default: no limit. */
  readonly callsPerMinute?: number;
  /** Kind of tool, such as "compute". Default "general". */
  readonly category?: string;
  /** Default "1.0.0". */
  readonly version?: string;
  /** What is handed to {@link ToolDefinition.run} under these names. They are not parameters: what a model says under one of them is dropped. */
  readonly inject?: Inject<Injected>;
  /** Hides what must not leave: applied to each text of the arguments before they are recorded, and of the result. */
  mask?(text: string): string;
  /**
   * Does the work. Arguments fit the schema, which `Args` has to agree with. A ToolError is told to the model; anything
   * else that is thrown is logged, and the model learns only that the tool failed. The signal fires when the caller
   * leaves or the time is over; a tool that ignores it is left behind.
   */
  run(args: Args, context: ToolContext, signal: AbortSignal, injected: Injected): Promise<ToolOutput> | ToolOutput;
}

type Values = Readonly<Record<string, unknown>>;

/** A tool that was found to be well-formed, ready to be registered. */
export interface CodeTool extends ToolDefinition<Values, Values> {
  readonly ephemeral: number;
  readonly onUnknown: OnUnknown;
  readonly permissions: readonly string[];
  /** 0: no limit. */
  readonly callsPerMinute: number;
  readonly category: string;
  readonly version: string;
  readonly inject: Readonly<Record<string, Provider<unknown>>>;
  readonly inputJson: string;
  readonly check: CheckArguments;
}

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const CATEGORY = /^[a-z0-9][a-z0-9_-]{0,31}$/;
/** Semantic Versioning 2.0.0, 64 characters at most. */
export const VERSION = /^(?=.{5,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;
const ON_UNKNOWN: ReadonlySet<string> = new Set<OnUnknown>(["report", "ask"]);
/** The engine's own tools. */
const RESERVED = new Set(["done", "read_tool_output"]);
const MAX_DESCRIPTION = 4_096;
const MAX_TIMEOUT_MS = 10 * 60_000;
const MAX_OUTPUT_BYTES = 1024 * 1024;
const MAX_EPHEMERAL = 100;
const MAX_CALLS_PER_MINUTE = 1_000_000;

/** Checks a tool's definition. Throws TypeError for one that could not work, so that a process with it does not start. */
export function defineTool<Args, Injected = Record<never, never>>(
  definition: ToolDefinition<Args, Injected>,
): CodeTool {
  const { name, description, input, timeoutMs, maxOutputBytes } = definition;
  const { ephemeral = 0, permissions = [], callsPerMinute = 0, category = "general", version = "1.0.0" } = definition;
  const { onUnknown = "report" } = definition;
  const inject = (definition.inject ?? {}) as CodeTool["inject"];
  const refuse = (problem: string): never => {
    throw new TypeError(`tool ${JSON.stringify(name)}: ${problem}`);
  };
  const mustBe = (holds: boolean, problem: string) => holds || refuse(problem);
  mustBe(typeof name === "string" && NAME.test(name), "its name must be 1 to 64 letters, digits, _ or -");
  mustBe(!RESERVED.has(name), "its name is reserved");
  const described = typeof description === "string" && description.trim() !== "";
  mustBe(
    described && description.length <= MAX_DESCRIPTION,
    `its description must have 1 to ${MAX_DESCRIPTION} characters`,
  );
  mustBe(Object(input)["type"] === "object", 'its input must be a schema of type "object"');
  mustBe(wholeNumber(timeoutMs, 1, MAX_TIMEOUT_MS), `timeoutMs must be 1 to ${MAX_TIMEOUT_MS}`);
  mustBe(wholeNumber(maxOutputBytes, 1, MAX_OUTPUT_BYTES), `maxOutputBytes must be 1 to ${MAX_OUTPUT_BYTES}`);
  mustBe(wholeNumber(ephemeral, 0, MAX_EPHEMERAL), `ephemeral must be 0 to ${MAX_EPHEMERAL}`);
  mustBe(
    wholeNumber(callsPerMinute, 0, MAX_CALLS_PER_MINUTE),
    `callsPerMinute must be 0 (no limit) to ${MAX_CALLS_PER_MINUTE}`,
  );
  mustBe(ON_UNKNOWN.has(onUnknown), 'onUnknown must be "report" or "ask"');
  mustBe(CATEGORY.test(category), "its category must be 1 to 32 lower-case letters, digits, _ or -");
  mustBe(VERSION.test(version), "its version must be one such as 1.0.0");
  for (const scope of permissions) mustBe(isScope(scope), `there is no scope ${JSON.stringify(scope)} to permit it`);
  mustBe(typeof definition.run === "function", "it has no run function");
  for (const [injected, provider] of Object.entries(inject)) {
    const provides = typeof provider?.provide === "function" && typeof provider.name === "string";
    mustBe(provides, `inject.${injected} must be a provider: { name, provide, dispose? }`);
    mustBe(!Object.hasOwn(Object(input["properties"]), injected), `"${injected}" is injected and a parameter`);
  }
  try {
    const check = compileArguments(name, input, Object.keys(inject));
    // The schema was checked above; that Args agrees with it is the definition's promise.
    const run = definition.run.bind(definition) as unknown as CodeTool["run"];
    const options = { ephemeral, permissions: [...permissions], callsPerMinute, category, version, inject, onUnknown };
    return { ...definition, ...options, run, check, inputJson: JSON.stringify(input) };
  } catch (error) {
    return refuse(`its input is not a valid schema: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function wholeNumber(value: number, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value <= most;
}
