import { randomUUID } from "node:crypto";
import { Agent } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { type AgentEvent, AgentEventSchema, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { Random } from "#tests/conformance/random.ts";
import { isTerminalType } from "./checkers.ts";
import type { LogEvent, SeenEvent } from "./history.ts";
import { messageOf, type Play } from "./scripted-model.ts";
import { SEED } from "./seed.ts";

/** A run as the clients know it. */
export interface ClientRun {
  readonly play: Play;
  /** The request id of its StartRun. */
  readonly key: string;
  /** What every StartRun with that key was answered. */
  readonly acknowledged: string[];
  readonly watches: { after: bigint; events: SeenEvent[]; whole: boolean }[];
  /** Whether a watcher has seen its end. */
  ended: boolean;
}

/** A call or a stream that failed, at `Date.now()`. */
export interface Trouble {
  readonly at: number;
  readonly call: "start" | "watch";
  readonly code: Code;
  readonly message: string;
}

/** How a caller is told to wait. */
const FALLBACK_WAIT_MS = 100;
/** Codes that come with a time to come again, whoever says them. */
const TOLD_TO_WAIT: ReadonlySet<Code> = new Set([Code.Unavailable, Code.ResourceExhausted]);

export interface LoadOptions {
  /** Tells this load's runs from those of others in the same mesh. */
  readonly name: string;
  readonly gateways: readonly string[];
  readonly adminKey: string;
  readonly inFlight: number;
  /** What the n-th run plays. */
  play(tag: string, random: Random): Play;
}

const START_TIMEOUT_MS = 4_000;
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

/** Callers that keep so many runs going, each watching its own to the end, leaving now and then and coming back. */
export class Load implements AsyncDisposable {
  readonly runs: ClientRun[] = [];
  readonly troubles: Trouble[] = [];
  /** Answers that no caller may be given, and runs whose end nobody saw. */
  readonly wrong: string[] = [];
  readonly #options: LoadOptions;
  readonly #clients: readonly Client<typeof RunService>[];
  readonly #agent = new Agent({ keepAlive: true });
  readonly #workers: Promise<void>[] = [];
  readonly #abandoned = new AbortController();
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#clients = options.gateways.map((gateway) => runClient(gateway, options.adminKey, this.#agent));
    for (let i = 0; i < options.inFlight; i++) this.#workers.push(this.#work());
  }

  /** Begins no more runs, and resolves when all have been watched to their end. */
  async finish(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#workers);
    this.#agent.destroy();
  }

  /** Leaves everything at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#abandoned.abort();
    await this.finish();
  }

  /** One caller: a run after the other, a few of them in one session. */
  async #work(): Promise<void> {
    let session = "";
    for (let turn = 0; !this.#stopping; turn++) {
      const number = this.runs.length;
      const random = new Random(SEED + number);
      if (turn % 3 === 0) session = randomUUID();
      const play = this.#options.play(`${this.#options.name}${number}`, random);
      const run: ClientRun = { play, key: randomUUID(), acknowledged: [], watches: [], ended: false };
      this.runs.push(run);
      const patience = { until: Date.now() + GIVE_UP_MS };
      try {
        await this.#start(run, session, random, patience);
        await this.#watch(run, random, patience);
      } catch (error) {
        this.wrong.push(`${play.tag} ${run.acknowledged[0] ?? "not begun"}: ${ConnectError.from(error).message}`);
        await sleep(200);
        session = randomUUID();
      }
    }
  }

  async #start(run: ClientRun, sessionId: string, random: Random, patience: Patience): Promise<void> {
    // Some are queued, and begun by whoever has room.
    const background = random.chance(0.2);
    const request = { message: messageOf(run.play), sessionId, requestId: run.key, background };
    // Now and then the answer is as good as lost, and the caller asks again.
    for (let asked = random.chance(0.1) ? 2 : 1; asked > 0; ) {
      try {
        const { run: begun } = await random
          .pick(this.#clients)
          .startRun(request, { timeoutMs: START_TIMEOUT_MS, signal: this.#abandoned.signal });
        run.acknowledged.push(begun?.runId ?? "");
        patience.until = Date.now() + GIVE_UP_MS;
        asked -= 1;
      } catch (error) {
        await this.#trouble("start", error, patience);
      }
    }
  }

  async #watch(run: ClientRun, random: Random, patience: Patience): Promise<void> {
    const runId = run.acknowledged[0] ?? "";
    let after = 0n;
    while (!run.ended) {
      const watch = { after, events: [] as SeenEvent[], whole: false };
      run.watches.push(watch);
      let left = random.chance(0.3) ? 1 + random.below(25) : Number.POSITIVE_INFINITY;
      const leave = new AbortController();
      const silence = setTimeout(() => leave.abort(), SILENCE_MS);
      try {
        const frames = random
          .pick(this.#clients)
          .streamRunEvents(
            { runId, afterSeq: after },
            { signal: AbortSignal.any([leave.signal, this.#abandoned.signal]) },
          );
        for await (const { frame } of frames) {
          silence.refresh();
          if (frame.case !== "event") continue;
          patience.until = Date.now() + GIVE_UP_MS;
          watch.events.push(seen(frame.value));
          after = frame.value.seq > after ? frame.value.seq : after;
          run.ended ||= isTerminalType(frame.value.type);
          if (--left <= 0 && !run.ended) leave.abort();
        }
        watch.whole = !leave.signal.aborted;
        if (watch.whole && !run.ended)
          await this.#trouble("watch", new ConnectError("ended early", Code.Aborted), patience);
      } catch (error) {
        if (left > 0 && !run.ended) await this.#trouble("watch", error, patience);
      } finally {
        clearTimeout(silence);
      }
    }
  }

  /**
   * Notes a failure that a caller may meet, and waits as long as the answer says before it asks again with the same
   * request id; throws any other, or when nothing has come forward for too long.
   */
  async #trouble(call: Trouble["call"], error: unknown, { until }: Patience): Promise<void> {
    const failed = ConnectError.from(error);
    const { code, rawMessage: message } = failed;
    this.troubles.push({ at: Date.now(), call, code, message });
    if (!RETRIED.has(code) || Date.now() > until || this.#abandoned.signal.aborted) throw error;
    const told = failed.findDetails(RetryInfoSchema)[0]?.retryDelay;
    if (told === undefined && TOLD_TO_WAIT.has(code))
      this.wrong.push(`${call}: ${message}, and not when to come again`);
    const ms = told === undefined ? FALLBACK_WAIT_MS : durationMs(told);
    await sleep(ms * (1 + Math.random() / 4), undefined, { signal: this.#abandoned.signal }).catch(() => {});
  }
}

interface Patience {
  until: number;
}

/** A caller of runs by Connect over HTTP/1.1, one connection for each call at a time. */
export function runClient(baseUrl: string, adminKey: string, agent: Agent): Client<typeof RunService> {
  const transport = createConnectTransport({
    baseUrl,
    httpVersion: "1.1",
    nodeOptions: { agent },
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${adminKey}`);
        return next(request);
      },
    ],
  });
  return createClient(RunService, transport);
}

/** An event as it was shown; of previews, which nobody stores, without the bytes. */
export function seen(event: AgentEvent): SeenEvent {
  if (event.retention === Retention.DURABLE) return { ...logEvent(event), durable: true };
  const { seq, prevSeq, type, itemId } = event;
  return { seq, prevSeq, type, itemId, isError: false, bytes: "", durable: false };
}

export function logEvent(event: AgentEvent): LogEvent {
  const { seq, prevSeq, type, itemId, payload } = event;
  const isError = payload.case === "toolCallCompleted" && payload.value.isError;
  return {
    seq,
    prevSeq,
    type,
    itemId,
    isError,
    bytes: Buffer.from(toBinary(AgentEventSchema, event)).toString("base64"),
  };
}
