import type { ToolCallPart } from "../llm/chat-model.ts";
import { checkArguments } from "./check-arguments.ts";
import { doneTool, doneToolName, type ToolCall, type ToolSpec } from "./tool-spec.ts";

/** What is to be done with a call: run it, end the run with it, or tell the model what is wrong with it. */
export type PlannedCall =
  | { action: "execute"; call: ToolCall; spec: ToolSpec }
  | { action: "done"; call: ToolCall; message: string; spec: ToolSpec }
  | { action: "refuse"; call: ToolCall; problem: string; spec?: ToolSpec };

/** The tools of a run, by name. */
export class ToolSet {
  /** As the model is told of them; the same list in every request, for the provider's cache. */
  readonly list: readonly ToolSpec[];
  readonly #byName: ReadonlyMap<string, ToolSpec>;
  readonly #maxCalls: number;

  /** With `requireDone` the built-in `done` tool is added; it replaces another of that name. */
  constructor(tools: readonly ToolSpec[], requireDone: boolean, maxCalls: number) {
    this.list = requireDone ? [...tools.filter((tool) => tool.name !== doneToolName), doneTool] : tools;
    this.#byName = new Map(this.list.map((tool) => [tool.name, tool]));
    this.#maxCalls = maxCalls;
  }

  /** Plans the calls of one turn, in their order. */
  plan(calls: readonly ToolCallPart[]): PlannedCall[] {
    return calls.map((part, index) => {
      const { callId, name, argumentsJson } = part;
      const call = { callId, name, argumentsJson };
      const refuse = (problem: string, spec?: ToolSpec): PlannedCall => ({
        action: "refuse",
        call,
        problem,
        ...(spec !== undefined && { spec }),
      });
      if (index >= this.#maxCalls) return refuse(`At most ${this.#maxCalls} tools can be called in one turn.`);
      const spec = this.#byName.get(name);
      if (spec === undefined) return refuse(this.#unknown(name));
      const checked = checkArguments(name, spec.inputSchema, argumentsJson);
      if ("problem" in checked) return refuse(checked.problem, spec);
      const ready = { ...call, argumentsJson: checked.argumentsJson };
      if (spec !== doneTool) return { action: "execute", call: ready, spec };
      const { message } = JSON.parse(checked.argumentsJson) as { message: string };
      return { action: "done", call: ready, message, spec };
    });
  }

  #unknown(name: string): string {
    const names = [...this.#byName.keys()];
    const known = names.length === 0 ? "There are no tools." : `The tools are: ${names.join(", ")}.`;
    return `There is no tool "${name}". ${known}`;
  }
}
