/** Built-in tools that every agent can do with: they read and compute only, or keep a list inside the conversation. */
const EVERYDAY_TOOLS = ["current_time", "calculator", "todo"] as const;

/** Built-in tools that a tenant's agents may have unless it says otherwise. */
export const HARMLESS_TOOLS = [...EVERYDAY_TOOLS, "escalate_to_human"] as const;

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
  tools: [...EVERYDAY_TOOLS],
  isDefault: true,
};
