import type { UserProfile } from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import type { ModelMessage, UserMessage } from "../llm/chat-model.ts";

const OPENING = "<user_profile>";

const LINES = [
  ["Name", "displayName"],
  ["Language", "language"],
  ["Time zone", "timezone"],
  ["Communication style", "style"],
  ["Length of answers", "length"],
  ["Technical level", "level"],
] as const satisfies readonly (readonly [string, keyof UserProfile])[];

/** The hidden message that tells a model about the user; undefined when nothing is known. */
export function profileMessage(profile: UserProfile | undefined, id: string): UserMessage | undefined {
  const known = LINES.flatMap(([name, field]) => {
    const value = plain(profile?.[field] ?? "");
    return value === "" ? [] : [`- ${name}: ${value}`];
  });
  if (known.length === 0) return undefined;
  const text = `${OPENING}\nThe user's settings. Follow them where the user asks for nothing else:\n${known.join("\n")}\n</user_profile>`;
  return { role: "user", id, content: [{ type: "text", text }], hidden: true };
}

/** True when a model that is shown this history has been told just this, and nothing else since. */
export function isToldOf(history: readonly ModelMessage[], message: UserMessage): boolean {
  const told = history.findLast((one) => one.role === "user" && one.hidden === true && textOf(one).startsWith(OPENING));
  return told !== undefined && textOf(told) === textOf(message);
}

function textOf({ content }: ModelMessage): string {
  const [first] = content;
  return first?.type === "text" ? first.text : "";
}

/** A setting is one line, and cannot end the block that it stands in. */
function plain(value: string): string {
  return value
    .replace(/[\p{Cc}\s]+/gu, " ")
    .replaceAll("<", "‹")
    .trim();
}
