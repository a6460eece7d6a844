import { ModelCallPurpose } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import { jsonText } from "#platform/postgres/json-text.ts";
import type { Call } from "#platform/rpc/call.ts";
import type {
  ContextCompacted,
  EngineEvent,
  EngineNotice,
  Escalated,
  ModelCalled,
  ModelUsage,
  StepCompleted,
} from "../engine/events.ts";
import { notice } from "../engine/events.ts";
import type { ModelMessage } from "../llm/chat-model.ts";
import type { Pricing } from "../llm/pricing.ts";
import { acceptedInput } from "../steering/run-inputs.ts";
import { insertCompaction } from "../store/compaction-store.ts";
import type { LedgerEntry } from "../store/ledger-store.ts";
import type { NewMessage } from "../store/message-store.ts";
import { markEscalated } from "../store/session-store.ts";
import { durableBody, previewPayload } from "./engine-payloads.ts";
import { MaskedOutput } from "./masked-output.ts";
import type { FirstStep } from "./run-begin.ts";
import type { RunLog } from "./run-log.ts";
import type { MaskRule } from "./stream-mask.ts";
import { type PricedTokens, sumOf, type UsageTotal, usageToProto } from "./usage-total.ts";

export interface ScribeOptions {
  log: RunLog;
  usage: UsageTotal;
  pricing: Pricing;
  /** Who the run works for, for audit rows. */
  call: Call;
  /** The step whose step_started was written with the run's start. */
  begun?: FirstStep | undefined;
  /** The step that an earlier attempt has left open, with a draft. */
  resumed?: number | undefined;
  /** Hidden in all that leaves the run. */
  hides?: MaskRule | undefined;
}

/**
 * Writes down what the engine tells: previews are shown at once, completed items and steps become durable events, and
 * a step's messages and the calls that it paid for are stored in the transaction of its events. Never waits; the log
 * tells when it is broken.
 */
export class RunScribe {
  readonly #options: ScribeOptions;
  readonly #log: RunLog;
  readonly #masked: MaskedOutput | undefined;
  #resumed: number | undefined;
  #steps = 0;
  readonly #added: NewMessage[] = [];
  #compactions = 0;
  /** What the open step has cost so far. */
  #stepCost: bigint | undefined = 0n;

  constructor(options: ScribeOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#resumed = options.resumed;
    this.#masked = options.hides && new MaskedOutput(options.hides);
  }

  /** Steps that have begun. */
  get steps(): number {
    return this.#steps;
  }

  /** What the run adds to its session; undefined when what a model is shown of it has changed besides. */
  get added(): readonly NewMessage[] | undefined {
    return this.#compactions > 0 ? undefined : this.#added;
  }

  write(event: EngineEvent): void {
    if (this.#masked === undefined) this.#write(event);
    else for (const shown of this.#masked.of(event)) this.#write(shown);
  }

  /** Tells something that does not come from the engine. */
  notice(reason: string, message: string, facts: Record<string, string> = {}): void {
    this.#write(notice(reason, message, { facts }) satisfies EngineNotice);
  }

  /** Declares the step void that the work should have begun with and did not come to: its start is stored already. */
  voidUnbegun(): void {
    if (this.#resumed !== undefined) {
      const value = { step: this.#resumed, cause: "not_begun" };
      this.#log.append({ body: { payload: { case: "itemDiscarded", value } } });
      this.#resumed = undefined;
    }
    if (this.#options.begun === undefined || this.#steps > 0) return;
    this.#log.append({
      body: { payload: { case: "itemDiscarded", value: { step: 1, cause: "not_begun" } } },
      openStep: 0,
    });
  }

  /** Tells that the model does not see the beginning of a long session. */
  historyTrimmed(messages: number): void {
    const text = "The session is long; its oldest messages are not shown to the model.";
    this.notice("HISTORY_TRIMMED", text, { messages: String(messages) });
  }

  #write(event: EngineEvent): void {
    switch (event.type) {
      case "message_started":
      case "text_delta":
      case "reasoning_delta":
      case "tool_call_started":
      case "tool_call_arguments_delta":
      case "tool_call_progress":
        this.#log.transient({ payload: previewPayload(event), itemId: event.itemId });
        break;
      case "step_started":
        this.#beginStep(event);
        break;
      case "step_completed":
        this.#completeStep(event);
        break;
      case "calls_planned": {
        const { step, usage, messages } = event;
        this.#log.append({ draft: { step, usage, messages } });
        break;
      }
      case "input_accepted":
        {
          const entry = acceptedInput(event.message, event.shown);
          this.#added.push(...entry.messages);
          this.#log.append(entry);
        }
        break;
      case "model_called":
        this.#book(event);
        break;
      case "context_compacted":
        this.#compacted(event);
        break;
      case "escalated":
        this.#escalated(event);
        break;
      default:
        this.#log.append({ body: durableBody(event) });
        break;
    }
  }

  #beginStep({ step, provider, model }: { step: number; provider: string; model: string }): void {
    const { begun } = this.#options;
    const stored = begun?.provider === provider && begun.model === model;
    // It asks another model than was foreseen.
    if (!stored) this.voidUnbegun();
    this.#stepCost = 0n;
    if (++this.#steps === 1 && stored) return;
    this.#log.append({
      body: { payload: { case: "stepStarted", value: { step, provider, model } } },
      openStep: step,
    });
  }

  #completeStep({ step, finishReason, usage, messages }: StepCompleted): void {
    const used = usageToProto(priced(usage, this.#stepCost));
    this.#resumed = undefined;
    const stored = messages.map(toStored);
    this.#added.push(...stored);
    this.#log.append({
      body: { payload: { case: "stepCompleted", value: { step, finishReason, usage: used } } },
      openStep: 0,
      messages: stored,
    });
  }

  #book({ purpose, usage, aborted, credentialId }: ModelCalled): void {
    const { pricing, usage: total } = this.#options;
    // Some providers tell what a call has used at its end only: of one that broke off nothing is known, and it was not free.
    const isKnown = !aborted || hasTokens(usage);
    const call = priced(usage, isKnown ? (pricing.costOf(usage) ?? undefined) : undefined);
    const entry: LedgerEntry = {
      ...call,
      entryId: newId("use"),
      purpose: PURPOSES[purpose],
      aborted,
      ownCredential: credentialId !== "platform",
    };
    total.add(call);
    this.#stepCost = sumOf(this.#stepCost, call.costNanoUsd);
    this.#log.book(entry);
    const value = { entryId: entry.entryId, purpose: PURPOSES[purpose], usage: usageToProto(call), aborted };
    this.#log.transient({ payload: { case: "modelCallBooked", value } });
  }

  #compacted(event: ContextCompacted): void {
    this.#compactions++;
    const { runId, sessionId } = this.#log.ids;
    const { messageId: summaryId, json: summaryJson } = toStored(event.message);
    const { keptMessageIds, firstKeptMessageId, messages, tokensBefore, tokensAfter } = event;
    this.#log.append({
      body: durableBody(event),
      within: (tx) =>
        insertCompaction(tx, {
          compactionId: newId("cmp"),
          runId,
          sessionId,
          keptMessageIds,
          firstKeptMessageId,
          summaryId,
          summaryJson,
          messages,
          tokensBefore,
          tokensAfter,
        }),
    });
  }

  #escalated(event: Escalated): void {
    const { runId, sessionId } = this.#log.ids;
    const { reason, priority } = event;
    const { call } = this.#options;
    this.#log.append({
      body: durableBody(event),
      async within(tx) {
        const mark = { reason, priority, run_id: runId, create_time: new Date().toISOString() };
        await markEscalated(tx, sessionId, jsonText(mark));
        await audit(tx, "agent", call, {
          type: "session.escalated",
          resource: sessionId,
          sessionId,
          // Why is on the session: audit rows outlive it.
          details: { run_id: runId, priority },
        });
      },
    });
  }
}

const PURPOSES = {
  turn: ModelCallPurpose.TURN,
  summary: ModelCallPurpose.SUMMARY,
  sub_agent: ModelCallPurpose.SUB_AGENT,
} as const;

function hasTokens({ inputTokens, cacheReadTokens, cacheWriteTokens, outputTokens }: ModelUsage): boolean {
  return inputTokens + cacheReadTokens + cacheWriteTokens + outputTokens > 0;
}

function priced(usage: ModelUsage, costNanoUsd: bigint | undefined): PricedTokens {
  return {
    provider: usage.provider,
    model: usage.model,
    inputTokens: BigInt(usage.inputTokens),
    cacheReadTokens: BigInt(usage.cacheReadTokens),
    cacheWriteTokens: BigInt(usage.cacheWriteTokens),
    outputTokens: BigInt(usage.outputTokens),
    costNanoUsd,
  };
}

/** What models and tools wrote is kept as far as the database can: it must not cost the run. The id has a column of its own. */
function toStored({ id = newId("msg"), ...message }: ModelMessage) {
  return { messageId: id, json: jsonText(message) };
}
