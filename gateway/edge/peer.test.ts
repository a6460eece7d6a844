import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { blockList } from "#platform/rpc/address-block.ts";
import { createPeerResolver } from "./peer.ts";

describe("the client's address", () => {
  test("is the connection's other end when no proxy is trusted, whatever the header says", () => {
    const { clientAddress } = createPeerResolver([]);
    assert.equal(clientAddress("203.0.113.1", "1.2.3.4"), "203.0.113.1");
    assert.equal(clientAddress("::ffff:203.0.113.1", undefined), "203.0.113.1");
    assert.equal(clientAddress("fe80::1%eth0", undefined), "fe80::1");
    assert.equal(clientAddress(undefined, "1.2.3.4"), "");
  });

  test("is the last address that no trusted proxy has, read from the right", () => {
    const { clientAddress } = createPeerResolver(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]);
    assert.equal(clientAddress("10.1.2.3", "6.6.6.6, 203.0.113.9, 192.0.2.7"), "203.0.113.9");
    assert.equal(clientAddress("2001:db8::1", "[2001:db9::5]:4711"), "2001:db9::5");
    assert.equal(clientAddress("10.1.2.3", "203.0.113.9:8080"), "203.0.113.9");
    assert.equal(clientAddress("203.0.113.1", "6.6.6.6"), "203.0.113.1", "only trusted proxies are believed");
    assert.equal(clientAddress("10.1.2.3", "10.0.0.9"), "10.0.0.9");
    assert.equal(clientAddress("10.1.2.3", "unknown, 10.0.0.9"), "10.0.0.9");
    assert.equal(clientAddress("10.1.2.3", "203.0.113.9, garbage"), "10.1.2.3");
    assert.equal(clientAddress("10.1.2.3", ""), "10.1.2.3");
  });

  test("a proxy that is no address is an error that names it", () => {
    for (const block of ["proxy", "10.0.0.0/33", "::1/129", "10.0.0.0/", "10.0.0.0/x", "1.2.3.4/8/8", ""]) {
      assert.throws(() => blockList([block]), new RegExp(`${JSON.stringify(block)} is neither`));
    }
  });
});
