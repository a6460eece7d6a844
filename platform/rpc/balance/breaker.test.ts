import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BREAKER, Breaker, type Permit } from "./breaker.ts";

/** A breaker on a clock that tests move. */
function clocked() {
  const clock = { now: 0 };
  const breaker = new Breaker({}, () => clock.now);
  const admitted = (): Permit => {
    const permit = breaker.enter();
    assert.ok(typeof permit !== "number", `refused for ${permit} ms`);
    return permit;
  };
  const refused = (): number => {
    const wait = breaker.enter();
    assert.ok(typeof wait === "number", "let through");
    return wait;
  };
  const open = () => {
    for (let call = 0; call < BREAKER.minCalls; call++) admitted().failed();
    assert.equal(breaker.state, "open");
  };
  return { clock, breaker, admitted, refused, open };
}

describe("a breaker", () => {
  test("opens when enough calls of the window failed, and says when to try again", () => {
    const { breaker, admitted, refused } = clocked();
    for (let call = 1; call < BREAKER.minCalls; call++) admitted().failed();
    assert.equal(breaker.state, "closed", "too few calls are no evidence");
    admitted().failed();
    assert.equal(breaker.state, "open");
    const wait = refused();
    assert.ok(wait >= BREAKER.openMs * 0.8 && wait <= BREAKER.openMs * 1.2, String(wait));
  });

  test("stays closed while most calls succeed, and when old failures leave the window", () => {
    const { clock, breaker, admitted } = clocked();
    for (let call = 0; call < 100; call++) {
      const permit = admitted();
      if (call % 5 < 2) permit.failed();
      else permit.succeeded();
    }
    assert.equal(breaker.state, "closed");
    for (let call = 0; call < 3 * BREAKER.minCalls; call++) {
      clock.now += BREAKER.windowMs / (BREAKER.minCalls - 5);
      admitted().failed();
    }
    assert.equal(breaker.state, "closed", "failures that are far apart");
  });

  test("half open lets a bounded number of probes through and closes when all succeed", () => {
    const { clock, breaker, admitted, refused, open } = clocked();
    open();
    clock.now += refused();
    const probes = Array.from({ length: BREAKER.probes }, admitted);
    assert.equal(breaker.state, "half open");
    for (let more = 0; more < 100; more++) refused();
    for (const probe of probes) probe.succeeded();
    assert.equal(breaker.state, "closed");
    for (let more = 0; more < 100; more++) admitted();
  });

  test("opens again, for longer, when a probe fails, and ignores the other probes", () => {
    const { clock, breaker, admitted, refused, open } = clocked();
    open();
    for (let time = 1; time < 3; time++) {
      clock.now += refused();
      const [one, other] = [admitted(), admitted()];
      one.failed();
      other.succeeded();
      assert.equal(breaker.state, "open");
      assert.ok(refused() >= 0.8 * BREAKER.openMs * 2 ** time, `opening ${time + 1}`);
    }
    for (let time = 0; time < 20; time++) {
      clock.now += refused();
      admitted().failed();
      assert.ok(refused() <= 1.2 * BREAKER.maxOpenMs);
    }
  });

  test("gives the place of a probe whose caller left, or that says nothing for long, to another", () => {
    const { clock, admitted, refused, open } = clocked();
    open();
    clock.now += refused();
    const probes = Array.from({ length: BREAKER.probes }, admitted);
    refused();
    probes[0]?.unknown();
    admitted();
    refused();
    clock.now += BREAKER.probeTimeoutMs;
    admitted();
  });

  test("is not told anything by calls that began before it opened", () => {
    const { clock, breaker, admitted, refused, open } = clocked();
    const early = Array.from({ length: 50 }, admitted);
    open();
    clock.now += refused();
    admitted();
    for (const permit of early.slice(25)) permit.succeeded();
    for (const permit of early.slice(0, 25)) permit.failed();
    assert.equal(breaker.state, "half open");
  });
});
