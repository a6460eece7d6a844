import type { MessagesRequest, RequestBlock } from "./check-request.ts";
import { type Block, fails, type Turn, toolUse } from "./turn.ts";

/** How the server answers where no marker says otherwise. */
export interface ReplyDefaults {
  /** Pieces of an answer. Unset: one per word. */
  deltas?: number;
  /** Wait before each piece, in milliseconds. */
  paceMs?: number;
}

const marker = /\[\[\s*([a-z]+)(?::([\w-]+))?\s*(\{[\s\S]*?\})?\s*(\d+)?\s*\]\]/g;

/**
 * The answer to a request that no script covers. It repeats what the user said, or what the tools answered. Markers in the
 * user's last message steer it:
 *
 * | marker | effect |
 * |---|---|
 * | `[[tool:calculator {"expression":"6*7"}]]` | calls the tool, several markers call several; answers with the results |
 * | `[[loop:current_time {}]]` | calls the tool in every turn, as long as the request allows calls |
 * | `[[deltas 200]]` | answers in so many pieces |
 * | `[[slow 500]]` | waits so many milliseconds before each piece |
 * | `[[together]]` | sends the whole answer in one write |
 * | `[[stamped]]` | begins each piece with the time at which it is written |
 * | `[[think]]` | thinks first |
 * | `[[error 529]]` | fails with this status |
 * | `[[length]]`, `[[refusal]]` | stops for this reason |
 * | `[[empty]]` | answers with nothing |
 * | `[[hang]]` | sends the first half and then nothing more |
 */
export function defaultReply(request: MessagesRequest, defaults: ReplyDefaults = {}): Turn {
  const { said, results } = lastExchange(request);
  const markers = [...said.matchAll(marker)];
  const number = (name: string) => {
    const found = markers.find(([, word]) => word === name)?.[4];
    return found === undefined ? undefined : Number(found);
  };
  const has = (name: string) => markers.some(([, word]) => word === name);
  const status = number("error");
  if (status !== undefined) return fails(status);

  const deltas = number("deltas") ?? defaults.deltas;
  const turn: Turn = { content: [] };
  if (deltas !== undefined) turn.deltas = deltas;
  const paceMs = number("slow") ?? defaults.paceMs;
  if (paceMs !== undefined) turn.paceMs = paceMs;
  if (has("together")) turn.together = true;
  if (has("stamped")) turn.stamped = true;
  if (has("empty")) return turn;
  if (has("length")) turn.stopReason = "max_tokens";
  if (has("refusal")) turn.stopReason = "refusal";
  if (has("hang")) turn.fault = { hang: { afterEvents: 4 } };

  const content: Block[] = [];
  if (has("think")) content.push({ type: "thinking", thinking: "Let me think about it.", signature: "c2lnbmVk" });
  const calls = mayCall(request) ? markers.filter(([, word]) => word === "loop" || (word === "tool" && !results)) : [];
  if (calls.length > 0) {
    content.push({ type: "text", text: "I will use a tool." });
    for (const [, , name, json] of calls) content.push(toolUse(name ?? "", parse(json), json));
  } else {
    const words = said.replace(marker, "").trim();
    content.push({
      type: "text",
      text: lengthen(results ? `The tools answered: ${results.join("; ")}.` : `You said: ${words}`, deltas),
    });
  }
  return { ...turn, content };
}

function mayCall(request: MessagesRequest): boolean {
  return request.tool_choice?.type !== "none" && (request.tools?.length ?? 0) > 0;
}

/** The newest text of the user, and the results that came after it. */
function lastExchange(request: MessagesRequest): { said: string; results: string[] | undefined } {
  const results: string[] = [];
  for (const message of request.messages.toReversed()) {
    if (message.role !== "user") continue;
    if (typeof message.content === "string")
      return { said: message.content, results: results.length ? results : undefined };
    results.unshift(...message.content.filter((block) => block.type === "tool_result").map(resultText));
    const text = message.content.filter((block) => block.type === "text").map((block) => block.text ?? "");
    if (text.length > 0) return { said: text.join("\n"), results: results.length ? results : undefined };
  }
  return { said: "", results: results.length ? results : undefined };
}

function resultText(block: RequestBlock): string {
  if (typeof block.content === "string") return block.content;
  const parts = Array.isArray(block.content) ? (block.content as RequestBlock[]) : [];
  return parts.map((part) => part.text ?? `[${part.type}]`).join(" ");
}

function parse(json: string | undefined): unknown {
  try {
    return JSON.parse(json ?? "{}");
  } catch {
    return {};
  }
}

/** A text with at least one character for each piece. */
function lengthen(text: string, pieces: number | undefined): string {
  if (pieces === undefined || pieces * 8 <= text.length) return text;
  let longer = text;
  for (let i = 1; longer.length < pieces * 16; i++) longer += ` (piece ${i} of the answer)`;
  return longer;
}
