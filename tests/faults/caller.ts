import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { AgentEvent, ApprovalRequested } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { ApprovalDecision } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import type { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import type { Random } from "#tests/conformance/random.ts";
import { isTerminalType } from "./checkers.ts";
import type { SeenEvent } from "./history.ts";
import { seen } from "./run-client.ts";
import { messageOf, type Play } from "./scripted-model.ts";

/** A run as the clients know it. */
export interface ClientRun {
  readonly play: Play;
  /** The request id that it was begun with. */
  readonly key: string;
  /** The failed run that it goes on with. */
  readonly retryOf: ClientRun | undefined;
  /** What every call with that key was answered. */
  readonly acknowledged: string[];
  readonly watches: { after: bigint; events: SeenEvent[]; whole: boolean }[];
  /** Messages that it was promised to take in. */
  readonly said: string[];
  /** The terminal event that a watcher has seen; empty before. */
  end: string;
}

/** A call or a stream that failed, at `Date.now()`. */
export interface Trouble {
  readonly at: number;
  readonly call: "start" | "retry" | "watch" | "say" | "decide";
  readonly code: Code;
  readonly message: string;
}

/** What callers of one load share. */
export interface CallerContext {
  readonly clients: readonly Client<typeof RunService>[];
  readonly approvers: readonly Client<typeof ApprovalService>[];
  readonly abandoned: AbortSignal;
  readonly troubles: Trouble[];
  /** Answers that no caller may be given. */
  readonly wrong: string[];
}

/** How a caller is told to wait. */
const FALLBACK_WAIT_MS = 100;
/** Codes that come with a time to come again, whoever says them. */
const TOLD_TO_WAIT: ReadonlySet<Code> = new Set([Code.Unavailable, Code.ResourceExhausted]);
const CALL_TIMEOUT_MS = 4_000;
/** Heartbeats come every second: a stream that is silent for longer is dead. */
const SILENCE_MS = 4_000;
/** A caller for whom nothing has come forward for so long, no answer and no event, gives its run up. */
const GIVE_UP_MS = 60_000;
const RETRIED: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.Aborted,
  Code.ResourceExhausted,
  Code.Canceled,
]);

/** Whoever has one run: begins it, watches it, and does what it needs of people. */
export class Caller {
  readonly #context: CallerContext;
  readonly #run: ClientRun;
  readonly #random: Random;
  /** What is done beside the watching. */
  readonly #errands = new Map<string, Promise<void>>();
  #patientUntil = 0;

  constructor(context: CallerContext, run: ClientRun, random: Random) {
    this.#context = context;
    this.#run = run;
    this.#random = random;
    this.#progress();
  }

  /** Begins the run in this session. */
  async start(sessionId: string): Promise<void> {
    // Some are queued, and begun by whoever has room.
    const background = this.#random.chance(0.2);
    const { key, play } = this.#run;
    const request = { message: messageOf(play), sessionId, requestId: key, background };
    await this.#begin("start", (client, options) => client.startRun(request, options));
  }

  /** Begins the run as one that goes on with a failed one. */
  async retry(failed: ClientRun): Promise<void> {
    const request = { runId: failed.acknowledged[0] ?? "", requestId: this.#run.key };
    await this.#begin("retry", (client, options) => client.retryRun(request, options));
  }

  /** Watches the run to its end, leaving now and then and coming back. */
  async watch(): Promise<void> {
    const run = this.#run;
    for (let after = 0n; run.end === ""; ) {
      const watch = { after, events: [] as SeenEvent[], whole: false };
      run.watches.push(watch);
      let left = this.#random.chance(0.3) ? 1 + this.#random.below(25) : Number.POSITIVE_INFINITY;
      const leave = new AbortController();
      const silence = setTimeout(() => leave.abort(), SILENCE_MS);
      try {
        const signal = AbortSignal.any([leave.signal, this.#context.abandoned]);
        const request = { runId: run.acknowledged[0] ?? "", afterSeq: after };
        for await (const { frame } of this.#client().streamRunEvents(request, { signal })) {
          silence.refresh();
          if (frame.case !== "event") continue;
          const event = seen(frame.value);
          watch.events.push(event);
          after = event.seq > after ? event.seq : after;
          if (isTerminalType(event.type)) run.end = event.type;
          this.#shown(frame.value);
          if (--left <= 0 && run.end === "") leave.abort();
        }
        watch.whole = !leave.signal.aborted;
        if (watch.whole && run.end === "") await this.#trouble("watch", new ConnectError("ended early", Code.Aborted));
      } catch (error) {
        if (left > 0 && run.end === "") await this.#trouble("watch", error);
      } finally {
        clearTimeout(silence);
      }
    }
    await Promise.all(this.#errands.values());
  }

  #shown({ payload, type }: AgentEvent): void {
    this.#progress();
    if (payload.case === "approvalRequested") this.#errand(payload.value.approvalId, () => this.#decide(payload.value));
    if (type === "text_delta" && this.#run.play.says === true) this.#errand("say", () => this.#say());
  }

  /** Does something once. */
  #errand(name: string, run: () => Promise<void>): void {
    if (this.#errands.has(name)) return;
    const errand = run();
    // Whoever watches hears of it at the end.
    errand.catch(() => {});
    this.#errands.set(name, errand);
  }

  async #decide({ approvalId, argumentsSha256 }: ApprovalRequested): Promise<void> {
    const decision = this.#random.chance(0.75) ? ApprovalDecision.APPROVE : ApprovalDecision.DENY;
    const request = { approvalId, argumentsSha256, decision, requestId: randomUUID() };
    await this.#asked("decide", (options) =>
      this.#random.pick(this.#context.approvers).resolveApproval(request, options),
    );
  }

  async #say(): Promise<void> {
    const request = { runId: this.#run.acknowledged[0] ?? "", message: "And mind the gap.", requestId: randomUUID() };
    try {
      const { messageId } = await this.#asked("say", (options) => this.#client().sendRunInput(request, options));
      this.#run.said.push(messageId);
    } catch (error) {
      // The run has ended meanwhile.
      if (ConnectError.from(error).code !== Code.FailedPrecondition) throw error;
    }
  }

  async #begin(
    call: Trouble["call"],
    begin: (
      client: Client<typeof RunService>,
      options: CallOptions,
    ) => Promise<{ run?: { runId: string } | undefined }>,
  ): Promise<void> {
    // Now and then the answer is as good as lost, and the caller asks again.
    for (let asked = this.#random.chance(0.1) ? 2 : 1; asked > 0; asked -= 1) {
      const { run } = await this.#asked(call, (options) => begin(this.#client(), options));
      this.#run.acknowledged.push(run?.runId ?? "");
    }
  }

  /** Asks until there is an answer. */
  async #asked<T>(call: Trouble["call"], ask: (options: CallOptions) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        const answer = await ask({ timeoutMs: CALL_TIMEOUT_MS, signal: this.#context.abandoned });
        this.#progress();
        return answer;
      } catch (error) {
        await this.#trouble(call, error);
      }
    }
  }

  #client(): Client<typeof RunService> {
    return this.#random.pick(this.#context.clients);
  }

  #progress(): void {
    this.#patientUntil = Date.now() + GIVE_UP_MS;
  }

  /**
   * Notes a failure that a caller may meet, and waits as long as the answer says before it asks again with the same
   * request id; throws any other, or when nothing has come forward for too long.
   */
  async #trouble(call: Trouble["call"], error: unknown): Promise<void> {
    const failed = ConnectError.from(error);
    const { code, rawMessage: message } = failed;
    const { troubles, wrong, abandoned: signal } = this.#context;
    troubles.push({ at: Date.now(), call, code, message });
    if (!RETRIED.has(code) || Date.now() > this.#patientUntil || signal.aborted) throw error;
    const told = failed.findDetails(RetryInfoSchema)[0]?.retryDelay;
    if (told === undefined && TOLD_TO_WAIT.has(code)) wrong.push(`${call}: ${message}, and not when to come again`);
    const ms = told === undefined ? FALLBACK_WAIT_MS : durationMs(told);
    await sleep(ms * (1 + Math.random() / 4), undefined, { signal }).catch(() => {});
  }
}

interface CallOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}
