import { fromBinary } from "@bufbuild/protobuf";
import { RunQueuedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import type { Bus, BusMessage, Subscription } from "#platform/bus/bus.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { workSubject } from "../runs/run-subject.ts";
import type { RunOfTenant } from "../store/queue-store.ts";
import { type Activated, type ActivationDeps, activate } from "./activation.ts";
import { Dispatcher, type DispatcherOptions } from "./dispatcher.ts";

/** Runs that this process tries to begin at the same time. */
const PARALLELISM = 8;
/** To begin one run; asking for the agent is the longest part. */
const ACTIVATION_MS = 30_000;

export interface RunQueueOptions
  extends Omit<ActivationDeps, "onFailure">,
    Omit<DispatcherOptions, "onDispatched" | "onCounted"> {
  bus: Bus;
  log: Log;
  events: QueueEvents;
}

/** What happens in the queue, as it is seen from outside. No method throws. */
export interface QueueEvents {
  runDispatched(tenantId: string): void;
  /** How many runs of all tenants wait now. */
  runsWait(count: number): void;
  runActivated(tenantId: string, runId: string, outcome: Activated): void;
  activationFailed(tenantId: string, runId: string, attempts: number, error: unknown): void;
  /** A message of the queue that is none. */
  messageRefused(subject: string): void;
}

/** Begins queued runs: those that the bus brings, and those that are due again. */
export class RunQueue {
  readonly #options: RunQueueOptions;
  readonly #dispatcher: Dispatcher;
  #consumer: Subscription | undefined;

  constructor(options: RunQueueOptions) {
    const { events } = options;
    this.#options = options;
    this.#dispatcher = new Dispatcher({
      ...options,
      onDispatched: ({ tenantId }) => events.runDispatched(tenantId),
      onCounted: events.runsWait,
    });
  }

  async start(): Promise<void> {
    this.#consumer = await this.#options.bus.consume({
      durable: "agent-runs",
      subjects: ["agentmesh.run_work.v1.>"],
      parallelism: PARALLELISM,
      timeoutMs: ACTIVATION_MS,
      onMessage: (message, signal) => this.#onMessage(message, signal),
      // What it speaks of is in the database, and due again when that can be asked.
      onPoison: async () => {},
    });
    this.#dispatcher.start();
  }

  /** Takes nothing more; what is being begun is begun, or is due again for others. May be called twice. */
  async stop(): Promise<void> {
    await this.#consumer?.unsubscribe();
    await this.#dispatcher.stop();
  }

  /** Returning acknowledges: by then the run is leased, has ended, or is due again. */
  async #onMessage(message: BusMessage, signal: AbortSignal): Promise<void> {
    const { events } = this.#options;
    const run = runOf(message);
    if (run === undefined) return events.messageRefused(message.subject);
    const { tenantId, runId } = run;
    const onFailure = (_: RunOfTenant, error: unknown, attempts: number) =>
      events.activationFailed(tenantId, runId, attempts, error);
    // Where there was no room there is now, and perhaps for more.
    const launch: ActivationDeps["launch"] = (call, started) =>
      this.#options.launch(call, started).then(() => this.#dispatcher.wake(tenantId));
    const outcome = await activate({ ...this.#options, launch, onFailure }, run, signal);
    if (outcome === "begun") this.#dispatcher.wake(tenantId);
    if (outcome === "no_room") this.#dispatcher.rest(tenantId);
    events.runActivated(tenantId, runId, outcome);
  }
}

/** The run that a message speaks of; undefined for one that is no such message, or of another run than its subject. */
function runOf({ subject, data }: BusMessage): RunOfTenant | undefined {
  try {
    const { tenantId, runId } = fromBinary(RunQueuedSchema, data);
    return subject === workSubject(tenantId, runId) ? { tenantId, runId } : undefined;
  } catch {
    return undefined;
  }
}
