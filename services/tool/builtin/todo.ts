import { type CodeTool, defineTool } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import type { Todo, TodoList, TodoStore } from "../store/todo-store.ts";

interface TodoArguments {
  action: "add" | "list" | "complete" | "remove" | "clear";
  text?: string;
  id?: number;
}

const MAX_TEXT = 300;

/** Keeps a to-do list per session. */
export function todo(store: TodoStore, maxItems: number): CodeTool {
  return defineTool<TodoArguments>({
    name: "todo",
    description:
      "The to-do list of this conversation. Actions: add (text), list, complete (id, or text of the entry), " +
      "remove (id, or text of the entry), clear (removes all entries).",
    input: {
      type: "object",
      properties: {
        action: { type: "string", enum: ["add", "list", "complete", "remove", "clear"], description: "What to do." },
        text: { type: "string", description: "The entry, for add; or which entry is meant.", maxLength: MAX_TEXT },
        id: {
          type: "integer",
          description: "Number of an entry, as list shows it.",
          minimum: 1,
          maximum: 1_000_000_000,
        },
      },
      required: ["action"],
      additionalProperties: false,
    },
    risk: "write",
    concurrencySafe: false,
    idempotent: true,
    timeoutMs: 10_000,
    maxOutputBytes: 256 * 1024,
    category: "planning",
    async run(args, context, signal) {
      const { call, sessionId, endUserId, requestKey } = context;
      if (sessionId === "") throw new ToolError("A to-do list belongs to a session, and this call has none.");
      if (args.action === "list") return { structured: { items: await store.read(call, context, signal) } };
      const change = { call, sessionId, endUserId, requestKey, asked: JSON.stringify(args) };
      return { structured: await store.change(change, (list) => act(args, list, maxItems), signal) };
    },
  });
}

async function act(args: TodoArguments, list: TodoList, maxItems: number): Promise<Record<string, unknown>> {
  switch (args.action) {
    case "add": {
      const text = plain(args.text);
      if (text === "") throw new ToolError('Parameter "text" is missing: what is to be added?');
      if ((await list.all()).length >= maxItems) {
        throw new ToolError(`The list is full: it holds ${maxItems} entries. Remove some first.`);
      }
      return { added: await list.add(text) };
    }
    case "complete": {
      const item = meant(args, await list.all());
      await list.complete(item.id);
      return { completed: { ...item, done: true } };
    }
    case "remove": {
      const item = meant(args, await list.all());
      await list.remove(item.id);
      return { removed: item };
    }
    default:
      return { cleared: await list.clear() };
  }
}

/** The entry of that number, or the one of that text: an open one before a done one, an equal one before a similar one. */
function meant({ id, text }: TodoArguments, items: readonly Todo[]): Todo {
  if (id !== undefined) {
    const numbered = items.find((item) => item.id === id);
    if (numbered === undefined) throw new ToolError(`There is no entry ${id}. ${known(items)}`);
    return numbered;
  }
  const wanted = plain(text).toLowerCase();
  if (wanted === "") throw new ToolError('Parameter "id" is missing: which entry is meant?');
  const equal = items.filter((item) => item.text.toLowerCase() === wanted);
  const similar = equal.length > 0 ? equal : items.filter((item) => item.text.toLowerCase().includes(wanted));
  const open = similar.filter((item) => !item.done);
  const found = open.length > 0 ? open : similar;
  if (found.length === 0) throw new ToolError(`There is no entry with that text. ${known(items)}`);
  if (found.length > 1) {
    throw new ToolError(`Several entries have that text: ${numbers(found)}. Say which one is meant with "id".`);
  }
  return found[0] as Todo;
}

function known(items: readonly Todo[]): string {
  return items.length === 0 ? "The list is empty." : `The entries are ${numbers(items)}.`;
}

function numbers(items: readonly Todo[]): string {
  const shown = items.slice(0, 20).map(({ id }) => id);
  return items.length > shown.length ? `${shown.join(", ")}, …` : shown.join(", ");
}

/** On one line, without control characters. */
function plain(text = ""): string {
  return text
    .toWellFormed()
    .replace(/[\p{Cc}\s]+/gu, " ")
    .trim();
}
