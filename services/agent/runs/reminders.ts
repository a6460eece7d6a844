import { rateLimitWarning, todoReminder } from "../domain/reminders.ts";
import type { ToolCall, ToolOutcome } from "../engine/tool-spec.ts";
import type { UserMessage } from "../llm/chat-model.ts";

/** Calls of a tool that are left in the minute, from which on the model is warned. */
const FEW_CALLS = 3;

/** What a run's model is reminded of, from what its tools have told. */
export class Reminders {
  readonly #openTodos: (() => Promise<readonly string[]>) | undefined;
  /** Tools that can hardly be called any more, and are to be told of. */
  readonly #few = new Map<string, number>();
  readonly #warned = new Set<string>();
  #noted = 0;
  #completed = 0;

  constructor(openTodos: (() => Promise<readonly string[]>) | undefined) {
    this.#openTodos = openTodos;
  }

  /** Takes what a call came to. */
  called({ name, argumentsJson }: ToolCall, { callsLeft, isError }: ToolOutcome): void {
    if (callsLeft !== undefined && callsLeft <= FEW_CALLS && !this.#warned.has(name)) this.#few.set(name, callsLeft);
    if (name !== "todo" || isError === true) return;
    const { action } = JSON.parse(argumentsJson) as { action?: unknown };
    if (action === "add") this.#noted++;
    if (action === "complete") this.#completed++;
  }

  /** Messages for the model before its next turn; each tool is warned of once. */
  due(): UserMessage[] {
    if (this.#few.size === 0) return [];
    const warning = rateLimitWarning(this.#few);
    for (const tool of this.#few.keys()) this.#warned.add(tool);
    this.#few.clear();
    return [warning];
  }

  /**
   * A reminder of open todos, for a run that works by the list: it has planned steps, or done some. One that has only
   * noted a thing was asked to note it.
   */
  async unfinishedWork(): Promise<string | undefined> {
    if (this.#completed === 0 && this.#noted < 2) return undefined;
    const todos = (await this.#openTodos?.()) ?? [];
    return todos.length === 0 ? undefined : todoReminder(todos);
  }
}
