import type { FinishReason } from "../llm/chat-model.ts";
import { type EngineNotice, type LoopOutcome, notice } from "./events.ts";
import { doneReminder } from "./hidden-messages.ts";

/** What follows on a call of the model. */
export type Verdict =
  | { next: "tools" }
  /** Another call, after a hidden message of this text if there is one. */
  | { next: "model"; hidden?: string }
  | { next: "end"; outcome: LoopOutcome; text: string; notices: EngineNotice[] };

export interface FinishRulesOptions {
  /** Turns with tools that earlier attempts have made. */
  toolTurns: number;
  requireDoneTool: boolean;
  maxIterations: number;
  maxTextOnlyReplies: number;
  maxPauses: number;
  unfinishedWork: (() => Promise<string | undefined>) | undefined;
}

/** A finished call of the model, as far as the rules look at it. */
export interface FinishedTurn {
  finish: FinishReason;
  text: string;
  calls: number;
  /** True: the model was asked without tools, so that its answer is the end. */
  simplified: boolean;
}

/** Decides after each call of the model whether the run is over, and why. */
export class FinishRules {
  readonly #options: FinishRulesOptions;
  #toolTurns: number;
  #textOnly = 0;
  #pauses = 0;
  #askedForWork = false;
  /** Text before a pause; the answer goes on after it. */
  #begun = "";

  constructor(options: FinishRulesOptions) {
    this.#options = options;
    this.#toolTurns = options.toolTurns;
  }

  /** True when the turns are used up: the next call is the last, for an answer without tools. */
  get lastCall(): boolean {
    return this.#toolTurns >= this.#options.maxIterations;
  }

  async judge({ finish, text: newText, calls, simplified }: FinishedTurn): Promise<Verdict> {
    const text = this.#begun + newText;
    this.#begun = "";
    if (finish === "refusal") return end("REFUSED", text);
    if (this.lastCall) return end("MAX_ITERATIONS", text, finish);
    if (finish === "length") return end("LENGTH", text);
    if (calls > 0 && !simplified) {
      this.#toolTurns++;
      this.#textOnly = 0;
      this.#pauses = 0;
      return { next: "tools" };
    }
    if (finish === "pause") return this.#pause(text);
    this.#pauses = 0;
    if (simplified) return end("ANSWERED", text, finish);
    if (this.#options.requireDoneTool) return this.#remind(text);
    return (await this.#openWork()) ?? end("ANSWERED", text, finish);
  }

  #pause(text: string): Verdict {
    if (++this.#pauses > this.#options.maxPauses) {
      return end("INCOMPLETE", text, "pause");
    }
    this.#begun = text;
    return { next: "model" };
  }

  #remind(text: string): Verdict {
    if (++this.#textOnly >= this.#options.maxTextOnlyReplies) return end("INCOMPLETE", text);
    return { next: "model", hidden: doneReminder };
  }

  async #openWork(): Promise<Verdict | undefined> {
    if (this.#askedForWork || this.#options.unfinishedWork === undefined) return undefined;
    this.#askedForWork = true;
    const work = await this.#options.unfinishedWork();
    return work === undefined ? undefined : { next: "model", hidden: work };
  }
}

function end(outcome: LoopOutcome, text: string, finish?: FinishReason): Verdict {
  const notices: EngineNotice[] = [];
  if (text.trim() === "" && outcome !== "REFUSED")
    notices.push(notice("EMPTY_ANSWER", "The model gave an empty answer."));
  if (finish === "length") notices.push(notice("ANSWER_CUT", "The answer was cut at the token limit."));
  if (finish === "pause") notices.push(notice("ANSWER_CUT", "The model paused and did not finish its answer."));
  if (finish === "other")
    notices.push(notice("STOP_REASON_UNKNOWN", "The model stopped for a reason that is not known."));
  return { next: "end", outcome, text, notices };
}
