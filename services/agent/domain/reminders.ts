import type { UserMessage } from "../llm/chat-model.ts";

const MAX_TODOS = 20;

/** For a model that has answered while todos are open. */
export function todoReminder(todos: readonly string[]): string {
  const shown = todos.slice(0, MAX_TODOS).map((todo) => `- ${todo}`);
  if (todos.length > shown.length) shown.push(`- and ${todos.length - shown.length} more`);
  const count = todos.length === 1 ? "One entry of the to-do list is" : `${todos.length} entries of the to-do list are`;
  return (
    `<system-reminder>\n${count} still open:\n${shown.join("\n")}\n` +
    "If you can do more of it now, go on, and mark what is done. If it has to wait, say so in a complete answer to the " +
    "user, for this one takes the place of the last.\n</system-reminder>"
  );
}

/** For a model that is about to use up what a tool may be called. */
export function rateLimitWarning(left: ReadonlyMap<string, number>): UserMessage {
  const lines = Array.from(left, ([tool, calls]) => `- ${tool}: ${calls} ${calls === 1 ? "call" : "calls"} left`);
  const text =
    `<system-reminder>\nTools that can hardly be called any more in this minute:\n${lines.join("\n")}\n` +
    "Call them only where nothing else helps.\n</system-reminder>";
  return { role: "user", content: [{ type: "text", text }], hidden: true };
}
