import type { ContentPart, ModelMessage, ModelTool } from "./chat-model.ts";
import { readIntents, toCall } from "./demo-intent.ts";
import { chinese, english, type Phrases } from "./demo-phrases.ts";

/** Characters of a message that are looked at. */
const maxRead = 2_000;

/** What the demo model does next: call tools after a few words, or answer. */
export interface DemoReply {
  text: string;
  calls: { name: string; input: Record<string, unknown> }[];
}

interface Answered {
  name: string;
  input: Record<string, unknown>;
  text: string;
  isError: boolean;
}

/** The reply to a conversation. The same conversation and tools always give the same reply. */
export function demoReply(messages: readonly ModelMessage[], tools: readonly ModelTool[], mayCall: boolean): DemoReply {
  const users = messages.flatMap((message, i) => (message.role === "user" && message.hidden !== true ? [i] : []));
  const last = users.at(-1) ?? -1;
  const question = textOf(messages[last]);
  const phrases = /\p{Script=Han}/u.test(question) ? chinese : english;
  const answered = resultsSince(messages, last);
  const spoken = messages.slice(0, last).some((message) => message.role === "assistant" && textOf(message) !== "");
  const finish = (text: string): DemoReply => ({
    text: spoken ? text : `${text}${separator(text, phrases)}${phrases.note}`,
    calls: [],
  });

  if (answered.length > 0) return finish(answered.map((one) => inWords(one, phrases)).join(phrases.join));
  const intents = readIntents(question);
  const calls = mayCall ? intents.flatMap((intent) => toCall(intent, tools) ?? []) : [];
  if (calls.length > 0) {
    const doable = intents.filter((intent) => toCall(intent, tools) !== undefined);
    const kinds = [...new Set(doable.map(({ kind }) => (kind === "time" || kind === "arithmetic" ? kind : "todo")))];
    return { text: phrases.lookingAll(kinds.map((kind) => phrases.looking[kind])), calls };
  }
  const earlier = users.slice(0, -1).map((i) => textOf(messages[i]));
  const chat = smallTalk(question, earlier, phrases, tools);
  // An answer that names the demo model needs no note that does it again.
  return chat.self ? { text: chat.text, calls: [] } : finish(chat.text);
}

function smallTalk(question: string, earlier: string[], phrases: Phrases, tools: readonly ModelTool[]) {
  const say = (text: string, self = false) => ({ text, self });
  const name = [...earlier, question].map(givenName).findLast((given) => given !== undefined);
  if (givenName(question) !== undefined && name !== undefined) return say(phrases.nice(name));
  if (/\bmy name\b|\bwho am i\b|我叫什么|我的名字|我是谁/i.test(question)) {
    return say(name === undefined ? phrases.noName : phrases.yourName(name));
  }
  const before = earlier.at(-1);
  if (before !== undefined && /\bwhat did i (?:just )?(?:say|ask)\b|我刚才(?:说|问)|我刚刚(?:说|问)/i.test(question)) {
    return say(phrases.youSaid(before));
  }
  const able = phrases.abilities(abilities(tools));
  if (
    /\bwho are you\b|\bwhat are you\b|\byour name\b|\bare you (?:claude|real|human|an? )|你是谁|你叫什么|你是什么/i.test(
      question,
    )
  ) {
    return say(`${phrases.identity}${phrases.join}${able}`, true);
  }
  if (/\bwhat can you do\b|\bhelp\b|\bcan you do\b|你能做什么|你会什么|帮助|有什么功能/i.test(question))
    return say(able);
  if (/\b(?:thanks|thank you|cheers)\b|谢谢|多谢/i.test(question)) return say(phrases.thanks);
  if (/\b(?:bye|goodbye|see you)\b|再见|拜拜/i.test(question)) return say(phrases.bye);
  if (
    /^\W*(?:hi|hello|hey|good (?:morning|afternoon|evening))\b|^\W*(?:你好|您好|嗨|早上好|下午好|晚上好)/iu.test(
      question,
    )
  ) {
    return say(phrases.greeting(name));
  }
  return say(`${phrases.unable}${phrases.join}${able}`, true);
}

function givenName(text: string): string | undefined {
  const english = /\b(?:my name is|my name's|call me)\s+(\p{L}[\p{L}'-]*)/iu.exec(text)?.[1];
  if (english !== undefined) return english;
  const name = /我(?:的名字)?(?:叫|是叫)\s*([\p{L}·]{1,8}?)(?=$|[\s，。！？,.!?])/u.exec(text)?.[1];
  return name === undefined || name.startsWith("什么") ? undefined : name;
}

function abilities(tools: readonly ModelTool[]): ("time" | "arithmetic" | "todo")[] {
  const able = (["time", "arithmetic"] as const).filter(
    (kind) => toCall(kind === "time" ? { kind } : { kind, expression: "1" }, tools) !== undefined,
  );
  return toCall({ kind: "todo_list" }, tools) === undefined ? able : [...able, "todo"];
}

/** Calls since a message, with their results. */
function resultsSince(messages: readonly ModelMessage[], index: number): Answered[] {
  const calls = new Map<string, { name: string; input: Record<string, unknown> }>();
  const answered: Answered[] = [];
  for (const message of messages.slice(index + 1)) {
    if (message.role === "assistant") {
      for (const part of message.content) {
        if (part.type === "tool_call")
          calls.set(part.callId, { name: part.name, input: parseObject(part.argumentsJson) ?? {} });
      }
    } else if (message.role === "tool") {
      for (const { callId, content, isError } of message.content) {
        const call = calls.get(callId);
        if (call !== undefined && call.name !== "done") answered.push({ ...call, text: joinText(content), isError });
      }
    }
  }
  return answered;
}

function inWords({ name, input, text, isError }: Answered, phrases: Phrases): string {
  if (isError) return phrases.failed(text);
  const data = parseObject(text);
  if (/time|clock/i.test(name)) return timeInWords(text, input, phrases);
  if (/calculat/i.test(name)) {
    const value = data?.["result"] ?? data?.["value"] ?? data?.["answer"] ?? text.replace(/^.*=\s*/s, "").trim();
    const expression = String(Object.values(input)[0] ?? "");
    return phrases.result(expression.replaceAll(/\s*\*\s*/g, " × ").replaceAll(/\s*\/\s*/g, " ÷ "), String(value));
  }
  if (/to_?do/i.test(name)) return todoInWords(text, data, input, phrases);
  return phrases.says(text);
}

function timeInWords(text: string, input: Record<string, unknown>, phrases: Phrases): string {
  const found = /(\d{4})-(\d\d)-(\d\d)[T ](\d\d:\d\d)(?::\d\d(?:\.\d+)?)?\s*(Z|[+-]\d\d:?\d\d)?/.exec(text);
  if (found === null) return phrases.clockSays(text.trim().replace(/[.。]$/, ""));
  const [year, month, day] = found.slice(1, 4).map(Number) as [number, number, number];
  const weekday = new Date(Date.UTC(year, month - 1, day)).getUTCDay();
  const offset = found[5] === undefined || found[5] === "Z" ? "UTC" : `UTC${found[5]}`;
  const named = /\b[A-Z][A-Za-z]+\/[A-Za-z_]+\b/.exec(text)?.[0] ?? Object.values(input)[0];
  const zone = typeof named === "string" ? named : offset;
  return phrases.time({ year, month, day, weekday, clock: found[4] as string }, zone);
}

function todoInWords(
  text: string,
  data: Record<string, unknown> | undefined,
  input: Record<string, unknown>,
  phrases: Phrases,
): string {
  const values = Object.values(input).map(String);
  const item =
    Object.values(input).findLast((value) => typeof value === "string" && !/^[a-z_]{1,12}$/.test(value)) ??
    values.at(-1) ??
    "";
  if (values.some((value) => /^(?:add|create|new|append|insert)/i.test(value))) return phrases.added(String(item));
  if (values.some((value) => /^(?:complete|done|finish|check|mark|close|toggle)/i.test(value)))
    return phrases.completed(String(item));
  const items = listed(text, data);
  return items.length > 0 ? phrases.list(items) : phrases.emptyList;
}

/** The entries of a list, as JSON or as lines. */
function listed(text: string, data: Record<string, unknown> | undefined): string[] {
  const list = Object.values(data ?? {}).find((value) => Array.isArray(value)) ?? parseArray(text);
  if (list !== undefined) return (list as unknown[]).map(entry);
  const lines = text.split("\n").map((line) => line.replace(/^\s*(?:[-*•]|\d+[.)])\s*/, "").trim());
  return lines.filter(
    (line) =>
      line !== "" && !/[:：]$/.test(line) && !/empty|nothing|no (?:open )?(?:to-?dos?|items|tasks)|为空/i.test(line),
  );
}

function entry(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  const { done, completed, status } = value as Record<string, unknown>;
  const text = Object.entries(value).find(
    ([name, one]) => typeof one === "string" && !/id$|status|state|time|_at$/i.test(name),
  )?.[1];
  const mark = done === true || completed === true || /done|complete/.test(String(status)) ? " ✓" : "";
  return `${String(text ?? JSON.stringify(value))}${mark}`;
}

function separator(text: string, phrases: Phrases): string {
  return text.includes("\n") ? "\n\n" : phrases.join;
}

/** The beginning of a message's text: the rules are regular expressions, and some take time that grows with its square. */
function textOf(message: ModelMessage | undefined): string {
  return message === undefined || message.role === "tool" ? "" : joinText(message.content).slice(0, maxRead);
}

function joinText(parts: readonly (ContentPart | { type: string })[]): string {
  return parts.map((part) => ("text" in part && part.type === "text" ? part.text : "")).join("");
}

function parseObject(text: string): Record<string, unknown> | undefined {
  const value = parse(text);
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}

function parseArray(text: string): unknown[] | undefined {
  const value = parse(text);
  return Array.isArray(value) ? value : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
