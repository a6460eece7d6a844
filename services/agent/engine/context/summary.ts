import type { ModelMessage, UserMessage } from "../../llm/chat-model.ts";

const opening = "<conversation_summary>";
const closing = "</conversation_summary>";

/** The hidden message that stands for a part of the conversation. */
export function summaryMessage(summary: string, openTodos: readonly string[], id: string): UserMessage {
  const todos =
    openTodos.length === 0 ? "" : `\n\nTodos that are still open:\n${openTodos.map((todo) => `- ${todo}`).join("\n")}`;
  const text =
    `${opening}\nAn earlier part of this conversation was left out to save space. This is what it came to:\n\n` +
    `${summary}${todos}\n${closing}`;
  return { role: "user", id, content: [{ type: "text", text }], hidden: true };
}

/** Whether a message stands for a part of the conversation. */
export function isSummary(message: ModelMessage): boolean {
  const first = message.role === "user" && message.hidden === true ? message.content[0] : undefined;
  return first?.type === "text" && first.text.startsWith(opening);
}

/** The request for a summary of everything before it. */
export function summaryRequest(summaryPrompt: string): UserMessage {
  const text =
    `${summaryPrompt.trim()}\n\nYour summary takes the place of everything above, for whoever goes on with this conversation: ` +
    "whatever it does not say is lost. Keep names, numbers, identifiers and decisions exactly as they are, and include what " +
    "an earlier summary above says as far as it still matters. Write in the language of the conversation. " +
    "Do not call any tools and do not answer the user. Put the summary between <summary> and </summary>.";
  return { role: "user", content: [{ type: "text", text }], hidden: true };
}

/** The summary in a model's answer: what is between the tags, or all of it where there are none. */
export function summaryIn(answer: string): string {
  const begin = answer.indexOf("<summary>");
  if (begin < 0) return answer.trim();
  const end = answer.lastIndexOf("</summary>");
  return answer.slice(begin + "<summary>".length, end > begin ? end : undefined).trim();
}
