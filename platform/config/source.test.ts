import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ConfigError } from "./config-error.ts";
import type { ReadConfig } from "./load.ts";
import { loadConfig } from "./load.ts";

/** What the key k.v reads from a YAML value, and from the same text in the environment; "refused" when it is. */
function reading(read: ReadConfig<unknown>) {
  const attempt = (env: Record<string, string>, values: object) => {
    try {
      return loadConfig(read, { env, dir: false, values });
    } catch (error) {
      assert.ok(error instanceof ConfigError, String(error));
      assert.equal(error.problems.length, 1, error.message);
      return "refused";
    }
  };
  return {
    yaml: (value: unknown) => attempt({}, { k: { v: value } }),
    env: (text: string) => attempt({ AGENTMESH_K__V: text }, {}),
    absent: () => attempt({}, {}),
  };
}

describe("ConfigSource", () => {
  test("string: text that matches as a whole", () => {
    const { yaml, env, absent } = reading((source) => source.string("k.v", { pattern: /a|b+/ }));
    assert.deepEqual(
      [yaml("a"), env("bb"), yaml("ab"), yaml(5), yaml(true), yaml(["a"]), absent()],
      ["a", "bb", "refused", "refused", "refused", "refused", "refused"],
    );
    assert.equal(reading((source) => source.string("k.v", { default: "d" })).absent(), "d");
    assert.equal(reading((source) => source.string("k.v", { optional: true })).absent(), undefined);
    assert.equal(reading((source) => source.string("k.v", { default: "d" })).yaml(""), "refused");
  });

  test("choice: one of the values", () => {
    const { yaml, env } = reading((source) => source.choice("k.v", ["json", "pretty"], { default: "json" }));
    assert.deepEqual([yaml("pretty"), env("json"), yaml("xml"), env("JSON")], ["pretty", "json", "refused", "refused"]);
  });

  test("int and number: within the range, as number or as text", () => {
    const int = reading((source) => source.int("k.v", { min: -1, max: 10 }));
    assert.deepEqual([int.yaml(10), int.env("-1"), int.yaml("3")], [10, -1, 3]);
    for (const wrong of [11, -2, 1.5, "1.5", "0x1", "1e1", "", " 1", true, {}, []])
      assert.equal(int.yaml(wrong), "refused");
    const number = reading((source) => source.number("k.v", { min: 0, max: 1 }));
    assert.deepEqual(
      [number.yaml(0.5), number.env("0.25"), number.yaml(Number.NaN), number.env("2")],
      [0.5, 0.25, "refused", "refused"],
    );
  });

  test("bool: true and false, and in the environment also 1 and 0", () => {
    const { yaml, env } = reading((source) => source.bool("k.v"));
    assert.deepEqual(
      [yaml(true), env("TRUE"), env("1"), env("0"), env("no"), env("maybe"), yaml([true])],
      [true, true, true, false, false, "refused", "refused"],
    );
  });

  test("duration: milliseconds within the range, never without a unit", () => {
    const { yaml, env } = reading((source) => source.duration("k.v", { default: "5s", min: "1s", max: 60_000 }));
    assert.deepEqual(
      [yaml("10s"), env("1m"), yaml(10), env("500ms"), yaml("2m")],
      [10_000, 60_000, "refused", "refused", "refused"],
    );
    assert.throws(
      () => loadConfig((source) => source.duration("k.v", { default: "5" }), { env: {}, dir: false }),
      /no duration/,
    );
  });

  test("url: an address of one of the protocols", () => {
    const { yaml, env } = reading((source) => source.url("k.v", { protocols: ["nats:", "tls:"] }));
    assert.deepEqual(
      [yaml("nats://h:4222"), env("tls://h"), yaml("http://h"), env("h:4222"), yaml(1)],
      ["nats://h:4222", "tls://h", "refused", "refused", "refused"],
    );
  });

  test("list: a YAML list, or texts with commas", () => {
    const { yaml, env, absent } = reading((source) => source.list("k.v", { default: ["d"], pattern: /[a-z]/ }));
    assert.deepEqual([yaml(["a", "b"]), env("a, b"), yaml([]), absent()], [["a", "b"], ["a", "b"], [], ["d"]]);
    assert.deepEqual([yaml([1]), yaml(["A"]), yaml({ a: 1 }), env("a,,b")], Array(4).fill("refused"));
  });

  test("object: layers and single variables laid over one another, checked by its parser", () => {
    const read: ReadConfig<unknown> = (source) =>
      source.object(
        "k.v",
        (raw) => {
          if (typeof raw !== "object") throw new Error("expected a map of limits");
          return raw;
        },
        { default: {} },
      );
    const values = { k: { v: { free: { rpm: 1, "claude-4.5": [1] }, pro: {} } } };
    const env = { AGENTMESH_K__V__FREE__RPM: "7" };
    assert.deepEqual(loadConfig(read, { env, dir: false, values }), { free: { rpm: 7, "claude-4.5": [1] }, pro: {} });
    assert.deepEqual(reading(read).env('{"a": 1}'), { a: 1 });
    assert.deepEqual(reading(read).absent(), {});
    assert.equal(reading(read).yaml(7), "refused");
    assert.equal(reading(read).env("text"), "refused");
  });

  test("keys are checked when they are written, not when they are configured", () => {
    for (const key of ["A", "a-b", "a..b", "a__b", "", "1a"]) {
      assert.throws(
        () => loadConfig((source) => source.string(key, { default: "" }), { env: {}, dir: false }),
        /no configuration key/,
      );
    }
  });
});
