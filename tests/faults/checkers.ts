// The invariants of a run as functions of what was recorded of it. Each returns what is wrong, one line per violation.
import { ASKS_FIRST, type LogEvent, type RunHistory, type SeenEvent, type Tokens } from "./history.ts";

export type Check = (history: RunHistory) => string[];

const TERMINAL = /^run_(completed|failed|cancelled)$/;

export function isTerminalType(type: string): boolean {
  return TERMINAL.test(type);
}

/** I1: whatever a client was shown as durable is in the log, byte for byte; and what was acknowledged exists. */
export const shownIsCommitted: Check = ({ log, watches }) => {
  if (log.length === 0) return ["was acknowledged and has no event in the log"];
  const stored = new Map(log.map((event) => [event.seq, event]));
  return watches.flatMap(({ events }) =>
    events
      .filter(({ durable, seq, bytes }) => durable && stored.get(seq)?.bytes !== bytes)
      .map((event) => `showed ${nameOf(event)}, which the log ${stored.has(event.seq) ? "has otherwise" : "lacks"}`),
  );
};

/** I2, the log: it begins with run_started, seq rises, and prev_seq names the event before. */
export const logIsChained: Check = ({ log }) => {
  const wrong: string[] = [];
  let previous = 0n;
  for (const event of log) {
    if (event.prevSeq !== previous)
      wrong.push(`${nameOf(event)} names ${event.prevSeq} before it, and that is ${previous}`);
    if (event.seq <= previous) wrong.push(`${nameOf(event)} does not rise above ${previous}`);
    previous = event.seq;
  }
  if (log[0] !== undefined && log[0].type !== "run_started") wrong.push(`begins with ${log[0].type}`);
  return wrong;
};

/** I2, the watchers: after k come the durable events after k, none missing and none twice, and seq rises throughout. */
export const resumesExactly: Check = ({ log, watches }) =>
  watches.flatMap(({ after, events, whole }) => {
    const wanted = log.filter(({ seq }) => seq > after);
    const shown = events.filter(({ durable }) => durable);
    const wrong: string[] = [];
    for (const [i, event] of shown.entries()) {
      if (event.seq === wanted[i]?.seq) continue;
      wrong.push(
        `after ${after} a watcher got ${nameOf(event)} in place of ${wanted[i] ? nameOf(wanted[i]) : "the end"}`,
      );
      break;
    }
    if (whole && wrong.length === 0 && shown.length < wanted.length) {
      wrong.push(`after ${after} a watcher was let go ${wanted.length - shown.length} events before the end`);
    }
    const falling = events.find(({ seq }, i) => seq <= (events[i - 1]?.seq ?? after));
    if (falling !== undefined) wrong.push(`after ${after} a watcher got ${nameOf(falling)}, which does not rise`);
    return wrong;
  });

/**
 * I2, the fence: events were written in the order of their numbers. A writer that had lost the run would have added below
 * or beside what its successor wrote.
 */
export const nothingStale: Check = ({ log, writtenAt }) =>
  log.flatMap((event, i) => {
    const before = writtenAt[i - 1];
    const at = writtenAt[i];
    return before !== undefined && at !== undefined && at < before
      ? [`${nameOf(event)} was written before the one above it`]
      : [];
  });

/** I3: exactly one terminal event, and nothing after it. */
export const endsOnce: Check = ({ log }) => {
  const ends = log.filter(({ type }) => TERMINAL.test(type));
  if (ends.length === 0) return ["has not ended"];
  if (ends.length > 1) return [`ended ${ends.length} times: ${ends.map(nameOf).join(", ")}`];
  const last = log.at(-1) as LogEvent;
  return last === ends[0] ? [] : [`went on to ${nameOf(last)} after its end`];
};

/** By what a run fails whose model has refused its request. */
const REFUSED = "MODEL_FAILED";

/** How a run has to end: completed, whatever was done to its owners; or by these reasons, where what it needs was away. */
export const endsAsPromised =
  (excused: readonly string[] = []): Check =>
  ({ log, owners, failure, failureText, refused }) => {
    const end = log.at(-1)?.type;
    if (end === "run_completed" || end === undefined || !TERMINAL.test(end)) return [];
    if (end === "run_failed" && (excused.includes(failure) || (refused && failure === REFUSED))) return [];
    return [`ended as ${end} ${failure} after ${owners} owners: ${failureText}`];
  };

/**
 * I4: a call acts at most once, or again with the same key when its tool is idempotent; it acts only after its intent is
 * in the log; and what the log has as completed did act.
 */
export const actsOnce: Check = ({ runId, log, executions }) => {
  const wrong: string[] = [];
  const byCall = Map.groupBy(executions, ({ callId }) => callId);
  for (const [callId, times] of byCall) {
    if (times.length > 1 && times.some(({ idempotent }) => !idempotent))
      wrong.push(`${callId} acted ${times.length} times`);
    for (const key of new Set(times.map(({ requestKey }) => requestKey))) {
      if (key !== `${runId}/${callId}`) wrong.push(`${callId} acted under the key ${key}`);
    }
    if (!log.some(({ type, itemId }) => type === "tool_call_requested" && itemId === callId)) {
      wrong.push(`${callId} acted, and the log does not have its intent`);
    }
  }
  const ends = log.filter(({ type }) => type === "tool_call_completed");
  for (const { itemId, isError } of ends) {
    if (!isError && !byCall.has(itemId)) wrong.push(`${itemId} is completed and never acted`);
  }
  const completed = ends.map(({ itemId }) => itemId);
  if (new Set(completed).size < completed.length) wrong.push("has a call that is completed twice");
  return wrong;
};

/** I4: what people have to allow happens only where they did. */
export const actsAsAllowed: Check = ({ executions, allowed }) =>
  executions
    .filter(({ tool, callId }) => tool === ASKS_FIRST && !allowed.includes(callId))
    .map(({ callId }) => `${callId} acted, and nobody had allowed it`);

/** A message that a run's caller was promised is taken in once, unless the run has failed; any other at most once. */
export const hearsOnce: Check = ({ log, heard, said }) => {
  const twice = heard.filter((id, i) => heard.indexOf(id) !== i).map((id) => `${id} was taken in more than once`);
  if (log.at(-1)?.type !== "run_completed") return twice;
  return [...twice, ...said.filter((id) => !heard.includes(id)).map((id) => `${id} was promised and not taken in`)];
};

/**
 * I5: every row of the ledger is one call in the model server's books and none is there twice; a call is in no ledger only
 * where its owner was lost with it, or its run failed with it; a step's usage is in the ledger; and what the run and its
 * terminal event say is the sum of the rows, of which the event may lack what an earlier owner booked later.
 */
export const billsWhatWasUsed: Check = ({ steps, total, usage, ledger, modelCalls, owners, failure }) => {
  const wrong: string[] = [];
  const books = [...modelCalls];
  for (const { input, output, aborted } of ledger) {
    const at = books.findIndex(
      (call) => call.input === input && (aborted ? output <= call.output : output === call.output),
    );
    if (at < 0) wrong.push(`${input}/${output} is booked, which no call of the model used, or not so often`);
    else books.splice(at, 1);
  }
  const mayLack = owners - 1 + (failure === "" ? 0 : 1);
  if (books.length > mayLack) {
    wrong.push(`${books.length} calls of the model are not booked, and ${mayLack} may have been lost`);
  }
  const booked = [...ledger];
  for (const { input, output } of steps) {
    // A refused call of the model costs nothing.
    if (input === 0 && output === 0) continue;
    const at = booked.findIndex((row) => row.input === input && row.output === output);
    if (at < 0) wrong.push(`a step has used ${input}/${output}, which is not booked, or not so often`);
    else booked.splice(at, 1);
  }
  if (total === undefined || usage === undefined) return wrong;
  const all = sum(ledger);
  const off = (one: Tokens) => one.input !== all.input || one.output !== all.output;
  if (off(usage)) wrong.push(`has used ${usage.input}/${usage.output}, and its ledger says ${all.input}/${all.output}`);
  if (total.input > all.input || total.output > all.output || (owners === 1 && off(total))) {
    wrong.push(`ended with ${total.input}/${total.output}, and its ledger says ${all.input}/${all.output}`);
  }
  return wrong;
};

/** I6: every key has exactly one run, and no two keys share one. Takes the runs that each call with a key was given. */
export function oneRunPerKey(answers: ReadonlyMap<string, readonly string[]>): string[] {
  const wrong: string[] = [];
  const owners = new Map<string, string>();
  for (const [key, runs] of answers) {
    const distinct = new Set(runs);
    if (distinct.size !== 1) wrong.push(`key ${key} has ${distinct.size} runs`);
    for (const run of distinct) {
      if (owners.has(run)) wrong.push(`${run} belongs to the keys ${owners.get(run)} and ${key}`);
      owners.set(run, key);
    }
  }
  return wrong;
}

/** I10, of what a pool holds: nothing once nobody works. Takes the pool's figures at idle, by name. */
export function nothingHeld(held: Readonly<Record<string, number>>): string[] {
  return Object.entries(held).flatMap(([name, count]) => (count === 0 ? [] : [`${count} ${name} are held at idle`]));
}

/** The invariants by name. */
export function invariants(excused: readonly string[] = []): Readonly<Record<string, Check>> {
  return {
    "I1 shown is committed": shownIsCommitted,
    "I2 log is chained": logIsChained,
    "I2 nothing stale": nothingStale,
    "I2 resume is exact": resumesExactly,
    "I3 one end": endsOnce,
    "I3 end as promised": endsAsPromised(excused),
    "I4 acts once": actsOnce,
    "I4 acts as allowed": actsAsAllowed,
    "messages heard once": hearsOnce,
    "I5 usage": billsWhatWasUsed,
  };
}

function sum(all: readonly Tokens[]): Tokens {
  return all.reduce((a, b) => ({ input: a.input + b.input, output: a.output + b.output }), { input: 0, output: 0 });
}

function nameOf({ type, seq }: LogEvent | SeenEvent): string {
  return `${type} ${seq}`;
}
