import type { UserMessage } from "../llm/chat-model.ts";

/** A message of the platform to the model: stored, sent, and not shown as chat. */
export function hiddenMessage(text: string, id: string): UserMessage {
  return { role: "user", id, content: [{ type: "text", text }], hidden: true };
}

/** After an answer in a run that only the `done` tool ends. */
export const doneReminder =
  "You answered without calling the `done` tool, so the task is still open. If everything is finished, call `done` with " +
  "your final answer as its message. If not, go on working with your tools.";

/** Before the last call of a run that used up its turns. */
export const lastAnswer =
  "You have used all the tool calls that this task allows. Do not call any more tools. Answer the user now from what you " +
  "have: what you did, what you found, and what is still open.";

/** Before the first call of a run that goes on with another one, whose last answer was broken off. */
export const goOnAfterBreak =
  "You were interrupted here, in the middle of your answer. Go on with the task from where you are, without repeating what " +
  "you have said.";

/** Added to the system prompt where only a simplified service is left. */
export const simplifiedMode =
  "You are running in a simplified mode: your tools are not available now. Answer briefly, from what you know and from what " +
  "is in this conversation, and say so where something would need a tool.";
