import { randomUUID } from "node:crypto";
import { Agent } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { ConnectError } from "@connectrpc/connect";
import { Random } from "#tests/conformance/random.ts";
import { Caller, type CallerContext, type ClientRun, type Trouble } from "./caller.ts";
import { approvalClient, runClient } from "./run-client.ts";
import type { Play } from "./scripted-model.ts";
import { SEED } from "./seed.ts";

export interface LoadOptions {
  /** Tells this load's runs from those of others in the same mesh. */
  readonly name: string;
  readonly gateways: readonly string[];
  readonly adminKey: string;
  readonly approverKey: string;
  readonly inFlight: number;
  /** What the n-th run plays. */
  play(tag: string, random: Random): Play;
}

/** Callers that keep so many runs going, each watching its own to the end. */
export class Load implements AsyncDisposable {
  readonly runs: ClientRun[] = [];
  readonly troubles: Trouble[] = [];
  /** Answers that no caller may be given, and runs whose end nobody saw. */
  readonly wrong: string[] = [];
  readonly #options: LoadOptions;
  readonly #context: CallerContext;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #workers: Promise<void>[] = [];
  readonly #abandoned = new AbortController();
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    const { gateways, adminKey, approverKey } = options;
    this.#context = {
      clients: gateways.map((gateway) => runClient(gateway, adminKey, this.#agent)),
      approvers: gateways.map((gateway) => approvalClient(gateway, approverKey, this.#agent)),
      abandoned: this.#abandoned.signal,
      troubles: this.troubles,
      wrong: this.wrong,
    };
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

  /** One run after the other, a few of them in one session. */
  async #work(): Promise<void> {
    let session = "";
    for (let turn = 0; !this.#stopping; turn++) {
      const number = this.runs.length;
      const random = new Random(SEED + number);
      if (turn % 3 === 0) session = randomUUID();
      const run = this.#newRun(this.#options.play(`${this.#options.name}${number}`, random));
      try {
        await this.#see(run, random, (caller) => caller.start(session));
        if (run.end !== "run_failed" || run.play.refused !== true) continue;
        await this.#see(this.#newRun(run.play, run), random, (caller) => caller.retry(run));
      } catch (error) {
        this.wrong.push(`${run.play.tag} ${run.acknowledged[0] ?? "not begun"}: ${ConnectError.from(error).message}`);
        await sleep(200);
        session = randomUUID();
      }
    }
  }

  async #see(run: ClientRun, random: Random, begin: (caller: Caller) => Promise<void>): Promise<void> {
    const caller = new Caller(this.#context, run, random);
    await begin(caller);
    await caller.watch();
  }

  #newRun(play: Play, retryOf?: ClientRun): ClientRun {
    const run = { play, key: randomUUID(), retryOf, acknowledged: [], watches: [], said: [], end: "" };
    this.runs.push(run);
    return run;
  }
}
