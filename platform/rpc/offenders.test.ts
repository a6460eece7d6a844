import assert from "node:assert/strict";
import { connect } from "node:http2";
import { connect as connectTcp } from "node:net";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Offenders } from "./offenders.ts";
import { openPort } from "./port.ts";

describe("Offenders", () => {
  test("who was cut too often is refused for a while, an IPv6 host whatever address it takes, and nobody else", async () => {
    const offenders = new Offenders({ offenceBurst: 2, offencesForgivenPerMinute: 6_000 });
    offenders.offended("2001:db8::1");
    assert.equal(offenders.refused("2001:db8::1"), false);
    const sooner = new Offenders({ offenceBurst: 2, offencesForgivenPerMinute: 6 });
    for (let i = 0; i < 2; i++) sooner.offended("2001:db8::1");
    assert.equal(sooner.refused("2001:db8::2"), true);
    assert.equal(sooner.refused("192.0.2.1"), false);
    for (let i = 0; i < 2; i++) offenders.offended("2001:db8::1");
    const deadline = performance.now() + 20_000;
    while (offenders.refused("2001:db8::1")) {
      assert.ok(performance.now() < deadline, "it was never forgiven");
      await sleep(5);
    }
  });

  test("it remembers so many addresses and no more", () => {
    const offenders = new Offenders({ offenceBurst: 1, offencesForgivenPerMinute: 1 });
    for (let i = 0; i <= 10_000; i++) offenders.offended(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`);
    assert.equal(offenders.refused("10.0.0.0"), false);
    assert.equal(offenders.refused("10.0.0.1"), true);
  });

  test("a port closes the next connections of an address that was cut for floods, and serves another address", async () => {
    const port = await openPort({
      host: "127.0.0.1",
      port: 0,
      limits: { pingBurst: 5, pingRate: 1, offenceBurst: 2, offencesForgivenPerMinute: 1 },
      listener: (_, response) => void response.end("served"),
    });
    const ask = async (localAddress: string): Promise<string> => {
      const session = connect(`http://127.0.0.1:${port.port}`, {
        createConnection: () => connectTcp({ host: "127.0.0.1", port: port.port, localAddress }),
      });
      session.on("error", () => {});
      try {
        const stream = session.request({ ":path": "/" }).on("error", () => {});
        let text = "";
        for await (const chunk of stream.setEncoding("utf8")) text += chunk;
        return text;
      } catch {
        return "refused";
      } finally {
        session.destroy();
      }
    };
    const flood = async () => {
      const session = connect(`http://127.0.0.1:${port.port}`, {
        createConnection: () => connectTcp({ host: "127.0.0.1", port: port.port, localAddress: "127.0.0.2" }),
        maxOutstandingPings: 1_000,
      });
      session.on("error", () => {});
      const closed = new Promise<void>((resolve) => session.once("close", () => resolve()));
      session.once("connect", () => {
        for (let i = 0; i < 50; i++) session.ping(() => {});
      });
      await closed;
    };
    assert.equal(await ask("127.0.0.2"), "served");
    await flood();
    assert.equal(await ask("127.0.0.2"), "served");
    await flood();
    assert.notEqual(await ask("127.0.0.2"), "served");
    assert.equal(await ask("127.0.0.1"), "served");
    await port.close(0);
  });
});
