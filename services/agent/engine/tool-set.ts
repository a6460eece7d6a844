import type { ToolCallPart } from "../llm/chat-model.ts";
import { checkArguments } from "./check-arguments.ts";
import {
  doneTool,
  doneToolName,
  readToolOutputName,
  readToolOutputTool,
  type ToolCall,
  type ToolSpec,
} from "./tool-spec.ts";

/** What is to be done with a call: run it, end the run with it, read an earlier output, or tell the model what is wrong with it. */
export type PlannedCall =
  | { action: "execute"; call: ToolCall; spec: ToolSpec }
  | { action: "done"; call: ToolCall; message: string; spec: ToolSpec }
  | { action: "read"; call: ToolCall; of: { callId: string; offset: number }; spec: ToolSpec }
  | { action: "refuse"; call: ToolCall; problem: string; spec?: ToolSpec };

/** The tools of a run, by name. */
export class ToolSet {
  readonly #byName: Map<string, ToolSpec>;
  readonly #maxCalls: number;
  #list: readonly ToolSpec[];

  /** With `requireDone` the built-in `done` tool is added. Tools that have the name of a built-in one give way to it. */
  constructor(tools: readonly ToolSpec[], requireDone: boolean, maxCalls: number) {
    const others = tools.filter(({ name }) => name !== readToolOutputName && !(requireDone && name === doneToolName));
    this.#list = requireDone ? [...others, doneTool] : others;
    this.#byName = new Map(this.#list.map((tool) => [tool.name, tool]));
    this.#maxCalls = maxCalls;
  }

  /** As the model is told of them; the same list in every request, for the provider's cache, until reading is offered. */
  get list(): readonly ToolSpec[] {
    return this.#list;
  }

  /** Adds the built-in tool that reads earlier outputs. */
  offerReading(): void {
    if (this.#byName.has(readToolOutputName)) return;
    this.#list = [...this.#list, readToolOutputTool];
    this.#byName.set(readToolOutputName, readToolOutputTool);
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
      const checked = checkArguments(name, spec.checkedSchema ?? spec.inputSchema, argumentsJson);
      if ("problem" in checked) return refuse(checked.problem, spec);
      const ready = { ...call, argumentsJson: checked.argumentsJson };
      if (spec === readToolOutputTool) {
        const { call_id, offset } = JSON.parse(checked.argumentsJson) as { call_id: string; offset: number };
        return { action: "read", call: ready, of: { callId: call_id, offset }, spec };
      }
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
