import type { ModelMessage, ToolMessage, ToolResultPart } from "../../llm/chat-model.ts";
import { readToolOutputName } from "../tool-spec.ts";
import { estimateContent } from "./estimate.ts";

/** A result that may go. */
interface Candidate {
  callId: string;
  saves: number;
}

export interface Evicted {
  callIds: string[];
  tokensSaved: number;
}

/**
 * Which results the model is shown a placeholder for. The rule, of which the history alone is the input, so that every run
 * comes to the same view of the same history:
 *
 * - Of a tool that keeps `n`, the newest n results that the model has seen stay. Seen is what came before an answer of the
 *   model; what is new to it is always shown in full, and errors are never taken away.
 * - A result goes only where its placeholder is shorter.
 * - Before each request the results that may go are added up; they go all together, once that saves `batch` tokens. Between
 *   two batches the view only grows at its end, and the provider's cache holds.
 */
export class Evictions {
  readonly #keep: ReadonlyMap<string, number>;
  readonly #batch: number;
  readonly #toolOf = new Map<string, string>();
  /** Results that the model has seen and that still count among the newest n, by tool. */
  readonly #shown = new Map<string, Candidate[]>();
  /** Results that it has not seen. */
  #fresh: ToolResultPart[] = [];
  #waiting: Candidate[] = [];
  #waitingTokens = 0;
  readonly #gone = new Set<string>();
  readonly #views = new WeakMap<ToolMessage, { gone: number; message: ToolMessage }>();

  /** `keep` holds how many results stay, by tool; tools that are not in it keep all. */
  constructor(keep: ReadonlyMap<string, number>, batch: number) {
    this.#keep = keep;
    this.#batch = batch;
  }

  /** Takes the next message of the history. */
  append(message: ModelMessage): void {
    if (this.#keep.size === 0) return;
    if (message.role === "assistant") {
      // What the model had before it when it wrote this was decided on then.
      this.decide();
      for (const result of this.#fresh) this.#see(result);
      this.#fresh = [];
      for (const part of message.content) if (part.type === "tool_call") this.#toolOf.set(part.callId, part.name);
    } else if (message.role === "tool") {
      this.#fresh.push(...message.content);
    }
  }

  /** Decides for the request that comes; undefined: nothing more goes. */
  decide(): Evicted | undefined {
    if (this.#waiting.length === 0 || this.#waitingTokens < this.#batch) return undefined;
    const evicted = { callIds: this.#waiting.map(({ callId }) => callId), tokensSaved: this.#waitingTokens };
    for (const callId of evicted.callIds) this.#gone.add(callId);
    this.#waiting = [];
    this.#waitingTokens = 0;
    return evicted;
  }

  /** The message as the model sees it; the same object until more of it goes. */
  view(message: ModelMessage): ModelMessage {
    if (message.role !== "tool" || this.#gone.size === 0) return message;
    const gone = message.content.reduce((sum, { callId }) => sum + (this.#gone.has(callId) ? 1 : 0), 0);
    if (gone === 0) return message;
    const known = this.#views.get(message);
    if (known?.gone === gone) return known.message;
    const content = message.content.map((part) => (this.#gone.has(part.callId) ? placeholder(part) : part));
    const view = { ...message, content };
    this.#views.set(message, { gone, message: view });
    return view;
  }

  #see(result: ToolResultPart): void {
    const tool = result.tool ?? this.#toolOf.get(result.callId) ?? "";
    const keep = this.#keep.get(tool);
    if (keep === undefined || result.isError) return;
    const saves = estimateContent(result.content) - estimateContent(placeholder(result).content);
    const shown = this.#shown.get(tool) ?? [];
    this.#shown.set(tool, shown);
    shown.push({ callId: result.callId, saves });
    if (shown.length <= keep) return;
    const oldest = shown.shift() as Candidate;
    if (oldest.saves <= 0) return;
    this.#waiting.push(oldest);
    this.#waitingTokens += oldest.saves;
  }
}

/** What stands for a result that was evicted. */
export function placeholder(result: ToolResultPart): ToolResultPart {
  const text =
    "[This output was left out to save space. If you need it again, call " +
    `${readToolOutputName} with call_id ${JSON.stringify(result.callId)}.]`;
  return { ...result, content: [{ type: "text", text }] };
}
