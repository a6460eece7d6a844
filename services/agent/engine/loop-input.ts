import type { ChatModel, ModelCredential, ModelMessage, RequestMetadata, UserMessage } from "../llm/chat-model.ts";
import type { ModelError } from "../llm/model-error.ts";
import type { ModelUsage } from "./events.ts";
import type { NewItemId } from "./model-turn.ts";
import type { ExecuteTool, ReadToolOutput, ToolOutcome, ToolSpec } from "./tool-spec.ts";

export interface LoopLimits {
  /** Turns in which tools are called. After them there is one more call of the model, without tools, for an answer. */
  maxIterations: number;
  /** Output tokens of one call of the model. */
  maxTokens: number;
  /** With `requireDoneTool`: answers in a row without a call, after which the run ends as INCOMPLETE. Default 2. */
  maxTextOnlyReplies?: number;
  /** Times in a row that a model may pause and is asked to go on. Default 8. */
  maxPauses?: number;
  /** Calls in one turn; those above it are refused. Default 64. */
  maxCallsPerTurn?: number;
  /** Calls that run at the same time. Default 8. */
  maxParallelCalls?: number;
  /** Tokens that evicting old tool outputs must save before it is done, for the provider's cache. Default 2 000. */
  evictionBatch?: number;
}

/** A model that a run may use. */
export interface ModelRung {
  /** `simplified`: it is asked without tools, for a brief answer. */
  kind: "primary" | "fallback" | "simplified";
  model: ChatModel;
  modelName: string;
  /** A tenant's own credential; absent: the platform's. */
  credential?: ModelCredential;
  /** Tokens that prompt and answer may have together. */
  contextWindow: number;
}

/** How a long history is compacted. */
export interface CompactionSettings {
  /** Part of the model's window, 0 to 1, from which on the history is compacted. */
  thresholdRatio: number;
  /** What the summary shall keep, as an instruction to the model. */
  summaryPrompt: string;
  /** Turns at the end that stay as they are; at least 1. */
  keepTurns: number;
  /** Writes the summary; absent: the run's current model, which has the history in its cache. */
  summaryModel?: ModelRung;
}

/** Where an earlier attempt at the run was left. */
export interface ResumedWork {
  /** Number of the next step of its own. */
  nextStep: number;
  /** Turns with tools so far, that of the open step included. */
  toolTurns: number;
  /** `finishReason` of the last step that was completed; absent: none was. */
  lastFinish?: string;
  /** The step of which the model had asked for tools and that was not completed; its calls are gone on with. */
  openStep?: ResumedStep;
}

/** What a `calls_planned` event told, and the outcomes that there are. */
export interface ResumedStep {
  step: number;
  usage: ModelUsage;
  messages: readonly ModelMessage[];
  /** By call id; a call without one is run. */
  outcomes: ReadonlyMap<string, ToolOutcome>;
}

export interface LoopInput {
  /** The ladder: the run begins with the first, and goes down when a model cannot answer. Never empty. */
  models: readonly ModelRung[];
  /** Asked when no model could answer: an earlier or a prepared answer, if there is one. */
  lastResort?: (error: ModelError) => Promise<{ kind: "cached" | "canned"; text: string } | undefined>;
  /** Empty: none. It is configuration and in every request, never part of the history. */
  system: string;
  /** The conversation, with the message that is to be answered at its end. */
  history: readonly ModelMessage[];
  tools: readonly ToolSpec[];
  executeTool: ExecuteTool;
  /** Reads outputs that the model was shown only a part of, or that are no longer in the history. */
  readToolOutput?: ReadToolOutput;
  limits: LoopLimits;
  /** Only the built-in `done` tool ends the run. */
  requireDoneTool: boolean;
  newItemId: NewItemId;
  signal: AbortSignal;
  temperature?: number;
  metadata?: RequestMetadata;
  /** Absent: a history that is too long loses its oldest turns. */
  compaction?: CompactionSettings;
  /** Texts of the open todos; they are added to a summary. */
  openTodos?: () => Promise<readonly string[]>;
  /** Asked before each turn: messages for the model that are stored as hidden ones. */
  injections?: () => readonly UserMessage[];
  /** Asked before each turn: what the user has said meanwhile, to be stored and shown; undefined, without a wait: nothing. */
  arrivals?: () => Promise<readonly UserMessage[]> | undefined;
  /** Absent: the run's first attempt. */
  resume?: ResumedWork;
  /** Asked once, when the model has answered: a text about work that is still open gives it one more turn. */
  unfinishedWork?: () => Promise<string | undefined>;
  /**
   * Has the last word on an answer, before it is complete: what it gives in place of the text is what is told, stored and
   * returned. An answer that came in several messages is changed in what is returned only.
   */
  finalAnswer?: (text: string) => Promise<string>;
}
