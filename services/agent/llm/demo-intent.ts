import type { ModelTool } from "./chat-model.ts";

/** A tool call that a text asks for, in the model's own terms. */
export type Intent =
  | { kind: "time"; timezone?: string }
  | { kind: "arithmetic"; expression: string }
  | { kind: "todo_add"; item: string }
  | { kind: "todo_list" }
  | { kind: "todo_complete"; item: string };

const cities: Record<string, string> = {
  tokyo: "Asia/Tokyo",
  东京: "Asia/Tokyo",
  beijing: "Asia/Shanghai",
  北京: "Asia/Shanghai",
  shanghai: "Asia/Shanghai",
  上海: "Asia/Shanghai",
  "hong kong": "Asia/Hong_Kong",
  香港: "Asia/Hong_Kong",
  singapore: "Asia/Singapore",
  新加坡: "Asia/Singapore",
  delhi: "Asia/Kolkata",
  sydney: "Australia/Sydney",
  悉尼: "Australia/Sydney",
  london: "Europe/London",
  伦敦: "Europe/London",
  paris: "Europe/Paris",
  巴黎: "Europe/Paris",
  berlin: "Europe/Berlin",
  柏林: "Europe/Berlin",
  "new york": "America/New_York",
  纽约: "America/New_York",
  "san francisco": "America/Los_Angeles",
  "los angeles": "America/Los_Angeles",
  洛杉矶: "America/Los_Angeles",
};

const asksTime =
  /\bwhat(?:'s| is|’s)?\b[^.?!]*\b(?:time|date|day)\b|\btime is it\b|(?<!\ball )\b(?:the|current) time\b|\btoday(?:'s|’s)? date\b|\bo'?clock\b|几点|现在.{0,4}时间|什么时间|几号|星期几|周几|礼拜几|今天.{0,4}日期|当前时间/i;

const asksList =
  /\b(?:what(?:'s| is|’s| are)?|show|list|read|see|tell)\b[^.?!]*\b(?:to-?dos?|to do|list|tasks|reminders)\b|(?:有哪些|有什么|查看|看看|列出|显示|我的)[^。？！]*(?:待办|清单|任务)|(?:待办|清单|任务)[^。？！]*(?:有哪些|有什么|是什么)/i;

const adds = [
  /\bremind me (?:to|about|of|that)\s+(?<item>[^.?!\n]+)/i,
  /\b(?:add|put|write)\s+(?<item>[^.?!\n]+?)\s+(?:to|on|onto|in|down on)\s+(?:my|the)\s+(?:[\w-]+\s+){0,2}(?:list|to-?dos?|tasks)\b/i,
  /\b(?:add|new|create)(?:\s+(?:a|an|another))?\s+(?:to-?do|task|reminder)(?:\s+item)?(?:\s+(?:to|for|about)|\s*[:–-])?\s+(?<item>[^.?!\n]+)/i,
  /(?:请|帮我)?提醒我(?:要|去)?(?<item>[^。？！，\n]+)/,
  /(?:请|帮我)?把(?<item>[^。？！，\n]+?)(?:加入|加到|添加到|放进|写进|记到)(?:我的)?(?:待办|清单|任务)/,
  /(?:添加|新增|加|新建|创建)(?:一个|一条|一项)?(?:待办|任务)(?:事项)?\s*[:：]?\s*(?<item>[^。？！，\n]+)/,
];

const completes = [
  /\b(?:mark|tick|check)\s+(?:off\s+)?(?<item>[^.?!\n]+?)\s+(?:as\s+(?:done|complete|completed|finished)|off|done)\b/i,
  /\b(?:i(?:'ve| have|’ve)? (?:finished|done|completed)|i'm done with|complete|finish)\s+(?:the\s+)?(?:to-?do|task|item)\s+(?<item>[^.?!\n]+)/i,
  /(?:把)?(?<item>[^。？！，\n]+?)(?:标记为|设为|标为)(?:已)?完成/,
  /完成(?:了)?(?:待办|任务)\s*[:：]?\s*(?<item>[^。？！，\n]+)/,
];

/** What a text asks for, in the order time, arithmetic, to-do list. Empty: nothing that a tool of this model's could do. */
export function readIntents(text: string): Intent[] {
  const intents: Intent[] = [];
  if (asksTime.test(text)) {
    const timezone = findTimezone(text);
    intents.push({ kind: "time", ...(timezone !== undefined && { timezone }) });
  }
  const expression = findExpression(text);
  if (expression !== undefined) intents.push({ kind: "arithmetic", expression });
  const item = firstItem(adds, text);
  const finished = firstItem(completes, text);
  if (item !== undefined) intents.push({ kind: "todo_add", item });
  else if (finished !== undefined) intents.push({ kind: "todo_complete", item: finished });
  else if (asksList.test(text)) intents.push({ kind: "todo_list" });
  return intents;
}

function findTimezone(text: string): string | undefined {
  const named = /\b(?:Africa|America|Asia|Atlantic|Australia|Europe|Pacific)\/[A-Za-z_]+\b|\bUTC\b/.exec(text)?.[0];
  if (named !== undefined) return named;
  const lower = text.toLowerCase();
  return Object.entries(cities).find(([city]) => lower.includes(city))?.[1];
}

function firstItem(patterns: readonly RegExp[], text: string): string | undefined {
  for (const pattern of patterns) {
    const item = pattern
      .exec(text)
      ?.groups?.["item"]?.replace(/["“”「」]/g, "")
      .trim();
    if (item) return item;
  }
  return undefined;
}

const words: [RegExp, string][] = [
  [/(\d)[,，](?=\d{3}\b)/g, "$1"],
  [/(\d+(?:\.\d+)?)\s*(?:%|percent)\s+of\s+(\d+(?:\.\d+)?)/gi, "$1 / 100 * $2"],
  [/(\d+(?:\.\d+)?)\s*的\s*(\d+(?:\.\d+)?)\s*%/g, "$1 * $2 / 100"],
  [/\b(?:the\s+)?square root of\s+(\d+(?:\.\d+)?)/gi, "sqrt($1)"],
  [/(\d+(?:\.\d+)?)\s*的平方根/g, "sqrt($1)"],
  [/(?<=[\d)])\s*(?:multiplied by|times|×|乘以|乘|\bx\b)\s*(?=[\d(])/gi, " * "],
  [/(?<=[\d)])\s*(?:divided by|over|÷|除以)\s*(?=[\d(])/gi, " / "],
  [/(?<=[\d)])\s*(?:to the power of|\*\*|的)\s*(?=\d+\s*(?:$|[?.!。？！]|次方))/gi, " ^ "],
  [/(?<=[\d)])\s*(?:plus|加上|加|＋)\s*(?=[\d(])/gi, " + "],
  [/(?<=[\d)])\s*(?:minus|减去|减|−|–)\s*(?=[\d(])/gi, " - "],
];

/** The longest arithmetic expression of a text; dates, times and ranges are none. */
function findExpression(text: string): string | undefined {
  const plain = words.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), text);
  const withoutDates = plain.replace(/\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}:\d{2}|\b24\/7\b/g, " ");
  const found = withoutDates.match(/(?:sqrt\(|[-(]\s*)*\d[\d.\s()+\-*/^%]*/gi) ?? [];
  const parts = found.flatMap((one) => one.split(/(?<=\d)\s+(?=\d)/));
  const candidates = parts.map(balanced).filter((one) => /[\d)]\s*[-+*/^%]\s*[-(]*\s*(?:\d|sqrt)|sqrt\(/i.test(one));
  return candidates.sort((a, b) => b.length - a.length)[0];
}

/** Without what is left over at its ends: signs without a number and brackets without a partner. */
function balanced(text: string): string {
  let expression = text.trim();
  for (;;) {
    const opened = expression.split("(").length - 1;
    const closed = expression.split(")").length - 1;
    if (/[-+*/^.(%\s]$/.test(expression) && !/\d%$/.test(expression)) expression = expression.slice(0, -1);
    else if (closed > opened && expression.endsWith(")")) expression = expression.slice(0, -1);
    else if (opened > closed && expression.startsWith("(")) expression = expression.slice(1);
    else if (opened > closed) expression += ")";
    else return expression.trim();
    if (expression === "") return "";
  }
}

type Schema = Record<string, unknown>;

/** A call that fulfils an intent with the tools that there are; undefined when none can. */
export function toCall(
  intent: Intent,
  tools: readonly ModelTool[],
): { name: string; input: Record<string, unknown> } | undefined {
  switch (intent.kind) {
    case "time": {
      const tool = tools.find(({ name }) => /current_?time|^time$|^clock$/i.test(name));
      const zone = tool && propertyLike(tool, /time_?zone|^tz$/i);
      return tool && { name: tool.name, input: zone && intent.timezone ? { [zone]: intent.timezone } : {} };
    }
    case "arithmetic": {
      const tool = tools.find(({ name }) => /calculat/i.test(name));
      const property = tool && (propertyLike(tool, /expr|formula|input/i) ?? Object.keys(properties(tool))[0]);
      return tool && property ? { name: tool.name, input: { [property]: intent.expression } } : undefined;
    }
    default:
      return todoCall(intent, tools);
  }
}

const actions = {
  todo_add: /^(?:add|create|new|append|insert)/i,
  todo_list: /^(?:list|show|get|read|all|view)/i,
  todo_complete: /^(?:complete|done|finish|check|mark|close|toggle)/i,
};

function todoCall(intent: Extract<Intent, { kind: `todo_${string}` }>, tools: readonly ModelTool[]) {
  const tool = tools.find(({ name }) => /to_?do/i.test(name));
  if (tool === undefined) return undefined;
  const input: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(properties(tool))) {
    const options = schema["enum"];
    if (!Array.isArray(options)) continue;
    const action = options.find((option) => actions[intent.kind].test(String(option)));
    if (action !== undefined) input[name] = action;
  }
  if (intent.kind !== "todo_list") {
    const number = intent.kind === "todo_complete" ? /^\D*(\d+)\D*$/.exec(intent.item)?.[1] : undefined;
    const byNumber = number === undefined ? undefined : propertyLike(tool, /(^|_)(?:id|index|number|position)$/i);
    const property = byNumber ?? propertyLike(tool, /^(?:text|title|item|task|content|description|name|todo)$/i);
    if (property === undefined) return undefined;
    const numeric = /^(?:integer|number)$/.test(String(properties(tool)[property]?.["type"]));
    input[property] = byNumber !== undefined && numeric ? Number(number) : (byNumber && number) || intent.item;
  }
  return { name: tool.name, input };
}

function properties(tool: ModelTool): Record<string, Schema> {
  const found = tool.inputSchema["properties"];
  return typeof found === "object" && found !== null ? (found as Record<string, Schema>) : {};
}

function propertyLike(tool: ModelTool, pattern: RegExp): string | undefined {
  return Object.keys(properties(tool)).find((name) => pattern.test(name));
}
