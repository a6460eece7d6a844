/** Built-in tools that read and compute only, or keep a list inside the conversation. */
export const HARMLESS_TOOLS = ["current_time", "calculator", "todo"] as const;

/** For agents whose tenant has no prompt either. */
export const DEFAULT_SYSTEM_PROMPT = `You are a helpful, friendly assistant.

- Answer in the language in which you are addressed.
- Be clear and to the point; ask when a question can be read in more than one way.
- Use a tool when it gives a surer answer than memory: for the time and the date, for arithmetic, for keeping track of steps.
- Say so when you do not know something. Never claim to have done what no tool has done.`;

/** The agent that every new tenant starts with. */
export const DEFAULT_AGENT = {
  name: "Assistant",
  description: "A general assistant that knows the time, can calculate, and keeps lists of things to do.",
  systemPrompt: DEFAULT_SYSTEM_PROMPT,
  tools: [...HARMLESS_TOOLS],
  isDefault: true,
};
