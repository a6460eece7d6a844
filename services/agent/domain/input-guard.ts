/** Longest normalised text that is looked at; some characters become many when they are normalised. */
const MAX_LOOKED_AT = 400_000;

/** Cyrillic and Greek letters that look like Latin ones. */
const LOOKALIKES = new Map(Array.from("асеорхуіјѕԁһκαοεν", (letter, i) => [letter, "aceopxyijsdhkaoev".charAt(i)]));
const LOOKALIKE = new RegExp(`[${[...LOOKALIKES.keys()].join("")}]`, "gu");

const FORMER = "(?:previous|prior|above|earlier|preceding|former|foregoing|initial|original|existing|system|safety)";
const RULES =
  "(?:instructions?|prompts?|rules?|guidelines?|directions?|directives?|commands?|context|constraints?|messages?)";
const SAID_BEFORE_ZH = "(?:之前|以前|先前|此前|上面|上述|前面|以上|所有|全部|一切|系统|系統|原有|原来|原來|既定|安全)";
const RULES_ZH =
  "(?:指令|指示|提示词|提示詞|提示|规则|規則|命令|设定|設定|要求|限制|约束|約束|内容|內容|对话|對話|说明|說明|准则|準則)";

/**
 * What attempts to take over a model say, by name. `words`: looked for in the words alone, punctuation left out; `lines`:
 * in the text as it is written. No quantifier is without a bound, so the time is linear in the length.
 */
const PATTERNS: readonly { name: string; on: "words" | "lines"; pattern: RegExp }[] = [
  {
    name: "override_instructions",
    on: "words",
    pattern: new RegExp(
      `\\b(?:ignore|disregard|forget|override|bypass|neglect|overlook|skip|do ?not ?(?:follow|obey)|don ?t ?(?:follow|obey)|stop ?(?:following|obeying)) ?(?:(?:all|any|every|each|of|the|these|those|your|my|our|its|everything|and|or) ?){0,5}${FORMER} ?(?:\\w{1,16} ){0,2}${RULES}?\\b`,
    ),
  },
  {
    name: "override_instructions",
    on: "words",
    pattern: new RegExp(
      `\\b(?:ignore|disregard|forget|override|bypass) ?(?:(?:all|any|every|each|of|the|these|those|your) ?){1,4}${RULES}\\b`,
    ),
  },
  {
    name: "override_instructions",
    on: "words",
    pattern:
      /\b(?:ignore|disregard|forget) ?(?:everything|all|anything) ?(?:that ?)?(?:you ?were|i ?said|was ?said|above|before|prior|previously)/,
  },
  {
    name: "override_instructions",
    on: "words",
    pattern: new RegExp(
      `(?:忽略|忽视|忽視|无视|無視|忘记|忘記|忘掉|抛开|拋開|跳过|跳過|绕过|繞過|不要(?:遵守|遵循|理会|理會|管)|停止(?:遵守|遵循)|别管|別管)[^\\n]{0,12}?${SAID_BEFORE_ZH}[^\\n]{0,12}?${RULES_ZH}`,
    ),
  },
  {
    name: "posed_as_system",
    on: "lines",
    pattern: /(?:^|[\n.!?;"'>\])}。!?;]) {0,4}(?:system|developer|系统|系統)(?: (?:prompt|message|override))? {0,2}:/,
  },
  { name: "posed_as_system", on: "lines", pattern: /(?:^|\n) {0,4}#{1,6} {0,4}(?:system|new instructions?|系统|系統)/ },
  {
    name: "chat_markup",
    on: "lines",
    pattern:
      /<\|(?:im_start|im_end|system|user|assistant|endoftext|start_header_id|eot_id)\|>|\[\/?inst\]|<<\/?sys>>|<\/?(?:system|system_prompt|system-reminder)>/,
  },
  {
    name: "new_instructions",
    on: "words",
    pattern:
      /\b(?:your|the|here ?are ?(?:your|the)) ?new ?(?:instructions?|rules?|directives?|system ?prompt) ?(?:are|is|follow|begin|:)/,
  },
  {
    name: "new_instructions",
    on: "words",
    pattern: /(?:你的|以下是|下面是)[^\n]{0,4}新[^\n]{0,2}(?:指令|规则|規則|设定|設定|系统提示|系統提示)/,
  },
  {
    name: "prompt_extraction",
    on: "words",
    pattern:
      /\b(?:reveal|show|print|output|repeat|display|tell|give|leak|dump|disclose|expose|write ?out|what ?(?:is|are|was|were)) ?(?:(?:me|us|out|back|to|all|of|the|your|verbatim|exact|full|entire|complete|content|contents|text) ?){0,6}(?:system|hidden|initial|original|secret|internal|developer) ?(?:\w{1,16} )?(?:prompts?|instructions?|messages?|rules)\b/,
  },
  {
    name: "prompt_extraction",
    on: "words",
    pattern:
      /(?:输出|輸出|显示|顯示|告诉我|告訴我|泄露|洩露|打印|列印|重复|重複|透露|说出|說出|公开|公開|复述|複述|给我看|給我看)[^\n]{0,12}?(?:系统|系統|初始|隐藏|隱藏|内部|內部|原始)[^\n]{0,6}?(?:提示词|提示詞|提示|指令|设定|設定|消息|prompt)/,
  },
  {
    name: "jailbreak",
    on: "words",
    pattern:
      /\b(?:do ?anything ?now|dan ?mode|developer ?mode ?(?:enabled|on|activated)|jail ?break(?:ed|ing)? ?(?:mode|prompt|yourself)|god ?mode|(?:enter|enable|activate|switch ?to) ?(?:developer|debug|jailbreak|unrestricted|admin) ?mode)\b/,
  },
  {
    name: "jailbreak",
    on: "words",
    pattern:
      /\b(?:you ?are ?now|pretend|act ?as|behave ?as|roleplay ?as|from ?now ?on ?you ?are) ?(?:\w{1,16} ){0,8}(?:dan|unrestricted|unfiltered|uncensored|jailbroken|(?:no|without|free ?(?:of|from)) ?(?:any ?|all ?)?(?:restrictions?|limitations?|limits|filters?|rules|guidelines|censorship|ethics))\b/,
  },
  {
    name: "jailbreak",
    on: "words",
    pattern:
      /(?:你现在是|你現在是|你现在扮演|你現在扮演|假装|假裝|扮演|从现在开始|從現在開始)[^\n]{0,16}?(?:不受|没有|沒有|无|無|摆脱|擺脫)[^\n]{0,6}?(?:限制|约束|約束|审查|審查|规则|規則|过滤|過濾)/,
  },
  {
    name: "jailbreak",
    on: "words",
    pattern:
      /(?:进入|進入|开启|開啟|启用|啟用|切换到|切換到|激活)[^\n]{0,4}?(?:开发者|開發者|越狱|越獄|dan|上帝|无限制|無限制|调试|調試|管理员|管理員) ?模式/,
  },
];

/**
 * Names of what a text has of attempts to take over a model: overridden instructions, posing as the system, jailbreaks,
 * asking for the prompt, in English and Chinese. It is a net with holes: a model's own defence and the rights of its tools
 * stand behind it. Bounded time on any text.
 */
export function suspicionsIn(text: string): string[] {
  const lines = normalise(text);
  // Spaced-out letters become words, whose bounds are lost: patterns do with or without spaces.
  const words = lines
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .replace(/(?<![^ ])(?:[a-z] ){3,400}[a-z](?![^ ])/g, (spaced) => spaced.replaceAll(" ", ""));
  const found = new Set<string>();
  for (const { name, on, pattern } of PATTERNS) {
    if (!found.has(name) && pattern.test(on === "words" ? words : lines)) found.add(name);
  }
  return [...found];
}

/** Without case, width, accents, invisible characters and letters that only look Latin. */
function normalise(text: string): string {
  return text
    .normalize("NFKD")
    .slice(0, MAX_LOOKED_AT)
    .replace(/[\p{M}\p{Cf}]+/gu, "")
    .toLowerCase()
    .replace(LOOKALIKE, (letter) => LOOKALIKES.get(letter) ?? letter)
    .replace(/\r\n?|\u2028|\u2029/g, "\n")
    .replace(/[^\S\n]+/gu, " ");
}
