// What was recorded of a run, from three sides: the log, those who watched, and the world that it acted on.

/** A durable event as it stands in the log. */
export interface LogEvent {
  readonly seq: bigint;
  readonly prevSeq: bigint;
  readonly type: string;
  /** The item that it is about, such as a call's id; empty for the run itself. */
  readonly itemId: string;
  /** Of a tool_call_completed: whether the call failed. */
  readonly isError: boolean;
  /** AgentEvent, binary, in base64. */
  readonly bytes: string;
}

/** An event as a client got it. */
export interface SeenEvent extends LogEvent {
  readonly durable: boolean;
}

/** One connection of a watcher: what it asked for and what it was shown. */
export interface Watch {
  /** The cursor: events after this seq were asked for. */
  readonly after: bigint;
  readonly events: readonly SeenEvent[];
  /** Whether the server ended the stream by itself, and not an error or the watcher. */
  readonly whole: boolean;
}

/** The tool whose calls wait until people allow them. */
export const ASKS_FIRST = "act_if_allowed";

/** An execution of a tool, told by the tool itself to somebody outside the mesh. */
export interface Execution {
  readonly tool: string;
  readonly runId: string;
  readonly callId: string;
  readonly requestKey: string;
  /** Whether the tool is declared idempotent. */
  readonly idempotent: boolean;
}

export interface Tokens {
  readonly input: number;
  readonly output: number;
}

/** A call of the model as its server has it in its books. No two have the same input. */
export type ModelCall = Tokens;

/** A row of the ledger. */
export interface Booked extends Tokens {
  /** The call broke off: what it had used by then. */
  readonly aborted: boolean;
}

export interface RunHistory {
  readonly runId: string;
  /** How many owners it has had, but for those that had it wait: the ones before the last were killed or stood still. */
  readonly owners: number;
  readonly log: readonly LogEvent[];
  /** When each event of the log was written, in milliseconds of the epoch. */
  readonly writtenAt: readonly number[];
  readonly watches: readonly Watch[];
  readonly executions: readonly Execution[];
  readonly modelCalls: readonly ModelCall[];
  /** Usage of the step_completed events, in order. */
  readonly steps: readonly Tokens[];
  /** Usage of the terminal event, and of the run as it is now; undefined: it has none. */
  readonly total: Tokens | undefined;
  readonly usage: Tokens | undefined;
  readonly ledger: readonly Booked[];
  /** ErrorInfo reason of run_failed; empty for any other end. */
  readonly failure: string;
  /** What run_failed says for people. */
  readonly failureText: string;
  /** The model refused it once, so that it may have failed of that. */
  readonly refused: boolean;
  /** Calls that people have allowed, by their ids. */
  readonly allowed: readonly string[];
  /** Messages that the run has taken in while it was at work, by their ids. */
  readonly heard: readonly string[];
  /** Those that its caller had been promised. */
  readonly said: readonly string[];
}
