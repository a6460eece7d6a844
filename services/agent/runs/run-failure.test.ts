import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { deadlineExceeded } from "#platform/postgres/errors.ts";
import { dependencyDown } from "#platform/rpc/errors.ts";
import { endOf, LogBroken, RunTimeout } from "./run-failure.ts";

/** Reason and facts of the end of a run whose work was ended for this. */
function endedFor(reason: Error): [string | undefined, Record<string, string> | undefined] {
  const end = endOf(new Error("aborted"), AbortSignal.abort(reason));
  assert.ok(end.kind === "failed");
  const [info] = end.error.details.map((detail) => anyUnpack(detail, ErrorInfoSchema));
  return [info?.reason, info?.metadata];
}

describe("the end of a run whose work was ended from outside", () => {
  test("what could not be written in time was for want of the database, and not of a caller's time", () => {
    const down = ["DEPENDENCY_DOWN", { dependency: "postgres" }];
    assert.deepEqual(endedFor(new LogBroken("", { cause: deadlineExceeded() })), down);
    assert.deepEqual(endedFor(new LogBroken("", { cause: dependencyDown("postgres") })), down);
  });

  test("a run that has lasted too long says so", () => {
    assert.deepEqual(endedFor(new RunTimeout()), ["RUN_TIMEOUT", {}]);
  });
});
