/** The demo model's words, in the languages that it knows. */
export interface Phrases {
  /** Before tool calls, by what is going to be looked at; several are joined. */
  looking: Record<"time" | "arithmetic" | "todo", string>;
  lookingAll(parts: string[]): string;
  time(date: { year: number; month: number; day: number; weekday: number; clock: string }, zone: string): string;
  clockSays(text: string): string;
  result(expression: string, value: string): string;
  added(item: string): string;
  completed(item: string): string;
  list(items: string[]): string;
  emptyList: string;
  says(text: string): string;
  failed(why: string): string;
  greeting(name: string | undefined): string;
  nice(name: string): string;
  yourName(name: string): string;
  noName: string;
  youSaid(text: string): string;
  thanks: string;
  bye: string;
  identity: string;
  /** What it can do, by the tools that there are. */
  abilities(parts: ("time" | "arithmetic" | "todo")[]): string;
  unable: string;
  /** Added to the first answer of a conversation. */
  note: string;
  join: string;
}

const weekdays = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = "January,February,March,April,May,June,July,August,September,October,November,December".split(",");

export const english: Phrases = {
  looking: { time: "look at the clock", arithmetic: "work that out", todo: "see to your list" },
  lookingAll: (parts) => `Let me ${and(parts)}.`,
  time: ({ year, month, day, weekday, clock }, zone) =>
    `It is ${clock} on ${weekdays[weekday]}, ${day} ${months[month - 1]} ${year} (${zone}).`,
  clockSays: (text) => `The clock says ${text}.`,
  result: (expression, value) => `${expression} is ${value}.`,
  added: (item) => `Done: “${item}” is on your to-do list now.`,
  completed: (item) => `Well done! I have ticked off “${item}”.`,
  list: (items) => `This is on your to-do list:\n${items.map((item) => `- ${item}`).join("\n")}`,
  emptyList: "Your to-do list is empty. Enjoy it while it lasts!",
  says: (text) => `Here is what I found: ${text}`,
  failed: (why) => `That did not work, I'm afraid: ${why}`,
  greeting: (name) => `Hello${name === undefined ? "" : `, ${name}`}! What can I do for you?`,
  nice: (name) => `Nice to meet you, ${name}! I will remember that for as long as we talk.`,
  yourName: (name) => `You told me that your name is ${name}.`,
  noName: "You have not told me your name yet.",
  youSaid: (text) => `Before that you said: “${text}”`,
  thanks: "You're welcome! Anything else?",
  bye: "Goodbye! Come back any time.",
  identity:
    "I am the demo model that comes with agentmesh. I follow a few simple rules, so that everything around me – " +
    "sessions, streaming, tools – can be tried without an API key. With ANTHROPIC_API_KEY set, Claude answers in my place.",
  abilities: (parts) =>
    parts.length === 0
      ? "I have no tools here, so small talk is all I can do."
      : `I can ${and(parts.map((part) => ({ time: "tell the time", arithmetic: "do arithmetic", todo: "keep your to-do list" })[part]))}. Try “${{ time: "What time is it in Tokyo?", arithmetic: "What is 17 * 23?", todo: "Remind me to water the plants" }[parts.at(-1) as "todo"]}”.`,
  unable:
    "That is beyond me: I am only agentmesh's demo model, until ANTHROPIC_API_KEY is set and Claude answers instead.",
  note: "(I am agentmesh's built-in demo model. Set ANTHROPIC_API_KEY and Claude answers instead.)",
  join: " ",
};

export const chinese: Phrases = {
  looking: { time: "看一下时间", arithmetic: "算一算", todo: "处理一下您的待办清单" },
  lookingAll: (parts) => `好的，我${parts.join("，再")}。`,
  time: ({ year, month, day, weekday, clock }, zone) =>
    `现在是${year}年${month}月${day}日星期${"日一二三四五六"[weekday]} ${clock}（${zone}）。`,
  clockSays: (text) => `现在的时间是：${text}。`,
  result: (expression, value) => `${expression} 等于 ${value}。`,
  added: (item) => `好的，已把“${item}”加入您的待办清单。`,
  completed: (item) => `太好了，“${item}”已标记为完成。`,
  list: (items) => `您的待办清单：\n${items.map((item) => `- ${item}`).join("\n")}`,
  emptyList: "您的待办清单是空的，可以放松一下。",
  says: (text) => `查到的结果：${text}`,
  failed: (why) => `抱歉，没有成功：${why}`,
  greeting: (name) => `您好${name === undefined ? "" : `，${name}`}！有什么可以帮您？`,
  nice: (name) => `很高兴认识您，${name}！在这次对话里我会记住您的名字。`,
  yourName: (name) => `您说过您叫${name}。`,
  noName: "您还没有告诉我您的名字。",
  youSaid: (text) => `您刚才说的是：“${text}”`,
  thanks: "不客气！还有什么需要吗？",
  bye: "再见，欢迎随时回来！",
  identity:
    "我是 agentmesh 自带的演示模型，只按几条简单的规则回答，让您没有 API 密钥也能体验会话、流式输出和工具调用。设置 ANTHROPIC_API_KEY 之后，将由 Claude 来回答。",
  abilities: (parts) =>
    parts.length === 0
      ? "这里没有可用的工具，我只能陪您聊几句。"
      : `我可以${parts.map((part) => ({ time: "报时", arithmetic: "做算术", todo: "管理待办清单" })[part]).join("、")}。试试：“${{ time: "东京现在几点？", arithmetic: "17 乘以 23 等于多少？", todo: "提醒我给花浇水" }[parts.at(-1) as "todo"]}”`,
  unable: "这个问题超出了我的能力：我只是 agentmesh 的演示模型，设置 ANTHROPIC_API_KEY 后由 Claude 回答。",
  note: "（我是 agentmesh 自带的演示模型；设置 ANTHROPIC_API_KEY 后由 Claude 回答。）",
  join: "",
};

function and(parts: string[]): string {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
