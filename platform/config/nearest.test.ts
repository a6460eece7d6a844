import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { nearest } from "./nearest.ts";

describe("nearest", () => {
  test("finds the candidate that takes the fewest changes", () => {
    const keys = ["agent.lease_ttl", "agent.lease_heartbeat", "tool.timeout"];
    assert.equal(nearest("agent.lease_tll", keys), "agent.lease_ttl");
    assert.equal(nearest("tols.timeout", keys), "tool.timeout");
    assert.equal(nearest("a", ["b", "c"]), "b");
    assert.equal(nearest("a", []), undefined);
  });
});
