import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  actsAsAllowed,
  actsOnce,
  billsWhatWasUsed,
  endsAsPromised,
  endsOnce,
  hearsOnce,
  invariants,
  logIsChained,
  nothingHeld,
  nothingStale,
  oneRunPerKey,
  resumesExactly,
  shownIsCommitted,
} from "./checkers.ts";
import { ASKS_FIRST, type LogEvent, type RunHistory, type SeenEvent } from "./history.ts";

const event = (seq: number, prev: number, type: string, itemId = ""): LogEvent => ({
  seq: BigInt(seq),
  prevSeq: BigInt(prev),
  type,
  itemId,
  isError: false,
  bytes: `${type} ${seq}`,
});
const shown = (one: LogEvent): SeenEvent => ({ ...one, durable: true });
const passing = (seq: number): SeenEvent => ({ ...event(seq, 0, "text_delta"), durable: false });

const started = event(1, 0, "run_started");
const requested = event(4, 1, "tool_call_requested", "call_1");
const completed = event(5, 4, "tool_call_completed", "call_1");
const step = event(6, 5, "step_completed");
const end = event(9, 6, "run_completed");
const log = [started, requested, completed, step, end];
const execution = { tool: "act_once", runId: "run_1", callId: "call_1", requestKey: "run_1/call_1", idempotent: false };
const good: RunHistory = {
  runId: "run_1",
  owners: 1,
  log,
  writtenAt: [1, 2, 2, 3, 4],
  watches: [
    { after: 0n, events: [shown(started), passing(2), passing(3), shown(requested)], whole: false },
    { after: 3n, events: log.slice(1).map(shown), whole: true },
  ],
  executions: [execution],
  modelCalls: [{ input: 10, output: 3 }],
  steps: [{ input: 10, output: 3 }],
  total: { input: 10, output: 3 },
  usage: { input: 10, output: 3 },
  ledger: [{ input: 10, output: 3, aborted: false }],
  failure: "",
  failureText: "",
  refused: false,
  allowed: [],
  heard: [],
  said: [],
};
const withWatch = (after: bigint, events: readonly SeenEvent[], whole = false): RunHistory => ({
  ...good,
  watches: [{ after, events, whole }],
});
const withLog = (...events: LogEvent[]): RunHistory => ({ ...good, log: events });

describe("the checks of a run's history", () => {
  test("find nothing in a good one", () => {
    for (const [name, check] of Object.entries(invariants())) assert.deepEqual(check(good), [], name);
  });

  test("I1: find what was shown and is not in the log, or is otherwise, and an acknowledged run that is not there", () => {
    assert.match(shownIsCommitted(withWatch(0n, [shown(event(7, 6, "notice"))]))[0] ?? "", /notice 7.*lacks/);
    assert.match(shownIsCommitted(withWatch(0n, [{ ...shown(step), bytes: "other" }]))[0] ?? "", /otherwise/);
    assert.equal(shownIsCommitted(withLog()).length, 1);
    assert.deepEqual(shownIsCommitted(withWatch(0n, [passing(7)])), []);
  });

  test("I2: find a broken chain, a number that does not rise, and another beginning", () => {
    assert.equal(logIsChained(withLog(started, completed)).length, 1);
    assert.equal(logIsChained(withLog(started, event(1, 1, "notice"))).length, 1);
    assert.equal(logIsChained(withLog(event(1, 0, "notice"))).length, 1);
  });

  test("I2: find an event that is skipped, repeated, before the cursor, or missing at the end", () => {
    const all = log.map(shown);
    assert.match(resumesExactly(withWatch(0n, all.toSpliced(2, 1)))[0] ?? "", /in place of tool_call_completed 5/);
    assert.ok(resumesExactly(withWatch(0n, [...all, shown(end)])).length > 0);
    assert.ok(resumesExactly(withWatch(4n, all.slice(1))).length > 0);
    assert.match(resumesExactly(withWatch(0n, all.slice(0, 3), true))[0] ?? "", /2 events before the end/);
    assert.deepEqual(resumesExactly(withWatch(0n, all.slice(0, 3))), []);
    assert.equal(resumesExactly(withWatch(0n, [shown(started), passing(3), passing(3)])).length, 1);
  });

  test("I2: find what was written later than what stands above it", () => {
    assert.equal(nothingStale({ ...good, writtenAt: [1, 2, 4, 3, 5] }).length, 1);
  });

  test("I3: find no end, two ends, and what comes after an end", () => {
    assert.deepEqual(endsOnce(withLog(started)), ["has not ended"]);
    assert.match(endsOnce(withLog(...log, event(10, 9, "run_failed")))[0] ?? "", /2 times/);
    assert.match(endsOnce(withLog(...log, event(10, 9, "step_started")))[0] ?? "", /step_started 10 after/);
  });

  test("I3: find an end that was not promised", () => {
    const lost = { ...withLog(started, event(3, 1, "run_failed")), owners: 2, failure: "OWNER_LOST" };
    assert.equal(endsAsPromised()(lost).length, 1);
    assert.equal(endsAsPromised(["DEPENDENCY_DOWN"])(lost).length, 1);
    assert.deepEqual(endsAsPromised(["OWNER_LOST"])(lost), []);
    assert.equal(endsAsPromised(["OWNER_LOST"])(withLog(started, event(3, 1, "run_cancelled"))).length, 1);
    const refused = { ...lost, failure: "MODEL_FAILED" };
    assert.equal(endsAsPromised()(refused).length, 1);
    assert.deepEqual(endsAsPromised()({ ...refused, refused: true }), []);
    assert.equal(endsAsPromised()({ ...lost, refused: true }).length, 1);
  });

  test("I4: find a call that nobody has allowed", () => {
    const executions = [{ ...execution, tool: ASKS_FIRST }];
    assert.match(actsAsAllowed({ ...good, executions })[0] ?? "", /call_1 acted, and nobody/);
    assert.deepEqual(actsAsAllowed({ ...good, executions, allowed: ["call_1"] }), []);
    assert.deepEqual(actsAsAllowed(good), []);
  });

  test("find a message that was promised and not taken in, or taken in twice", () => {
    assert.match(hearsOnce({ ...good, said: ["msg_1"] })[0] ?? "", /msg_1 was promised/);
    assert.deepEqual(hearsOnce({ ...good, said: ["msg_1"], heard: ["msg_1", "msg_2"] }), []);
    assert.match(hearsOnce({ ...good, heard: ["msg_1", "msg_1"] })[0] ?? "", /more than once/);
    assert.deepEqual(hearsOnce({ ...withLog(started, event(3, 1, "run_failed")), said: ["msg_1"] }), []);
  });

  test("I4: find a second execution, another key, an execution without intent, and a completion without execution", () => {
    const twice = [execution, execution];
    assert.match(actsOnce({ ...good, executions: twice })[0] ?? "", /acted 2 times/);
    assert.deepEqual(actsOnce({ ...good, executions: twice.map((one) => ({ ...one, idempotent: true })) }), []);
    const renamed = { ...execution, idempotent: true, requestKey: "run_1/again" };
    assert.equal(actsOnce({ ...good, executions: [{ ...execution, idempotent: true }, renamed] }).length, 1);
    assert.match(actsOnce({ ...good, log: log.toSpliced(1, 1) })[0] ?? "", /intent/);
    assert.match(actsOnce({ ...good, executions: [] })[0] ?? "", /never acted/);
    const failed = log.with(2, { ...completed, isError: true });
    assert.deepEqual(actsOnce({ ...good, executions: [], log: failed }), []);
    assert.equal(actsOnce({ ...good, log: [...log, completed] }).length, 1);
  });

  test("I5: find what is booked and was not used, and the other way round, and a total that is not the sum", () => {
    const used = { input: 10, output: 3 };
    const wrongs = (more: Partial<RunHistory>) => billsWhatWasUsed({ ...good, ...more });
    assert.match(wrongs({ modelCalls: [] })[0] ?? "", /no call of the model/);
    assert.match(wrongs({ ledger: [...good.ledger, ...good.ledger] })[0] ?? "", /not so often/);
    assert.match(wrongs({ steps: [used, used] })[0] ?? "", /a step has used/);
    assert.match(wrongs({ total: { input: 11, output: 3 } })[0] ?? "", /ended with/);
    assert.match(wrongs({ usage: { input: 10, output: 2 } })[0] ?? "", /has used 10\/2/);
    const other = { input: 20, output: 9 };
    const twice = [used, other];
    assert.match(wrongs({ modelCalls: twice })[0] ?? "", /1 calls of the model are not booked, and 0/);
    assert.deepEqual(wrongs({ modelCalls: twice, owners: 2 }), [], "it died with its owner");
    assert.deepEqual(wrongs({ modelCalls: twice, failure: "INTERNAL" }), [], "its run failed with it");
    const aborted = { input: 20, output: 4, aborted: true };
    const late = { modelCalls: twice, ledger: [...good.ledger, aborted], usage: { input: 30, output: 7 } };
    assert.deepEqual(wrongs({ ...late, owners: 2 }), [], "booked after the end");
    assert.equal(wrongs(late).length, 1, "nobody else was there to book it later");
    assert.equal(wrongs({ ...late, owners: 2, usage: used }).length, 1, "the run must say what its ledger says");
    assert.equal(wrongs({ ...late, owners: 2, ledger: [...good.ledger, { ...aborted, output: 10 }] }).length, 2);
  });

  test("I6: find a key with two runs or none, and a run with two keys", () => {
    assert.deepEqual(
      oneRunPerKey(
        new Map([
          ["a", ["run_1", "run_1"]],
          ["b", ["run_2"]],
        ]),
      ),
      [],
    );
    assert.equal(oneRunPerKey(new Map([["a", ["run_1", "run_2"]]])).length, 1);
    assert.equal(oneRunPerKey(new Map([["a", []]])).length, 1);
    assert.equal(
      oneRunPerKey(
        new Map([
          ["a", ["run_1"]],
          ["b", ["run_1"]],
        ]),
      ).length,
      1,
    );
  });

  test("I10: find what is still held", () => {
    assert.deepEqual(nothingHeld({ permits: 0 }), []);
    assert.deepEqual(nothingHeld({ permits: 2, streams: 0 }), ["2 permits are held at idle"]);
  });
});
