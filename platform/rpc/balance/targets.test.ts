import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseTargets, placesOf } from "./targets.ts";

describe("an address list", () => {
  test("is base URLs with commas between; a host name may be several replicas, an address is one", () => {
    const targets = parseTargets("http://10.0.0.1:8080, dns+http://agent:8080,https://agent.example/, http://[::1]:1");
    assert.deepEqual(targets, [
      { baseUrl: "http://10.0.0.1:8080", name: undefined },
      { baseUrl: "http://agent:8080", name: "agent" },
      { baseUrl: "https://agent.example", name: "agent.example" },
      { baseUrl: "http://[::1]:1", name: undefined },
    ]);
    assert.deepEqual(parseTargets("http://localhost:8080"), [{ baseUrl: "http://localhost:8080", name: undefined }]);
  });

  test("with an entry that is none is refused by its number, without showing it", () => {
    const refused: [string, RegExp][] = [
      ["", /^entry 1 is not a base URL; expected .*http:/],
      ["http://a:1,", /^entry 2 is not/],
      ["agent:8080", /^entry 1 is not/],
      ["dns+ftp://agent", /^entry 1 is not/],
      ["http://a:1,tcp://b:2", /^entry 2 is not/],
      ["http:agent:8080", /^entry 1 is not/],
      ["http://user:hunter2@a:1", /^entry 1 must have no user/],
      ["http://a:1/?x=1", /^entry 1 must have no/],
      ["http://a:1,http://a:1/", /twice/],
    ];
    for (const [text, expected] of refused) {
      const error = (() => {
        try {
          return parseTargets(text);
        } catch (thrown) {
          return thrown;
        }
      })();
      assert.ok(error instanceof Error, text);
      assert.match(error.message, expected, text);
      assert.doesNotMatch(error.message, /hunter2/);
    }
  });

  test("becomes one place per address when DNS has several, and the plain URL when it has one or none", async () => {
    const targets = parseTargets("http://many:1,http://single:2,http://nowhere:3,http://10.0.0.9:4");
    const places = await placesOf(targets, async (name) => {
      if (name === "many") return ["10.0.0.1", "2001:db8::1", "10.0.0.1"];
      if (name === "single") return ["10.0.0.5"];
      throw new Error("ENOTFOUND");
    });
    assert.deepEqual(places, [
      { baseUrl: "http://many:1", ip: "10.0.0.1" },
      { baseUrl: "http://many:1", ip: "2001:db8::1" },
      { baseUrl: "http://single:2", ip: undefined },
      { baseUrl: "http://nowhere:3", ip: undefined },
      { baseUrl: "http://10.0.0.9:4", ip: undefined },
    ]);
  });
});
