import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type ConditionFacts, compileCondition } from "./condition.ts";
import { ConditionError } from "./condition-rules.ts";

const facts: ConditionFacts = {
  context: {
    task_complexity: "high",
    needs_code_generation: true,
    n: 5,
    tags: ["a", "b"],
    nothing: null,
    deep: { er: { x: 1 } },
    constructor: { name: "x" },
    long: "a".repeat(5_000),
  },
  message: { length: 1200, has_images: false, language: "zh-CN" },
  session: { message_count: 3 },
  tenant: { tier: "pro" },
  agent: { id: "agt_1" },
};

const holds = (source: string, more: Partial<ConditionFacts> = {}) =>
  compileCondition(source).holds({ ...facts, ...more });

function refused(source: string): ConditionError {
  try {
    compileCondition(source);
  } catch (error) {
    assert.ok(error instanceof ConditionError, String(error));
    return error;
  }
  return assert.fail(`${source.slice(0, 80)} was compiled`);
}

/** Far above what anything here takes, far below what a blow-up would: a hang fails, a slow machine does not. */
const BOUND_MS = 5_000;

function soon<T>(what: string, act: () => T): T {
  const began = performance.now();
  const result = act();
  assert.ok(performance.now() - began < BOUND_MS, `${what} took ${performance.now() - began} ms`);
  return result;
}

describe("a condition", () => {
  test("holds or not, by every variable", () => {
    const table: [string, boolean][] = [
      ["", true],
      ["  \n", true],
      ["true", true],
      ["false", false],
      ["context.task_complexity == 'high'", true],
      ["context.task_complexity == 'low'", false],
      ["context.needs_code_generation", true],
      ["context['n'] > 4", true],
      ["context.n + 1.0 == 6.0", true],
      ["'a' in context.tags && !('c' in context.tags)", true],
      ["context.tags[1] == 'b'", true],
      ["context.deep.er.x == 1", true],
      ["context.nothing == null", true],
      ["context.constructor.name == 'x'", true],
      ["has(context.n) && !has(context.m)", true],
      ["message.length > 1000 && !message.has_images", true],
      ["message.length / 2 == 600", true],
      ["message.length > 1000.5", true],
      ["message.language.startsWith('zh')", true],
      ["message.language.matches('^(zh|ja)(-|$)')", true],
      ["session.message_count < 10 ? tenant.tier in ['pro', 'enterprise'] : false", true],
      ["agent.id == 'agt_1'", true],
      ["size(context.tags) == 2", true],
      ["double(context.n) / 2.0 == 2.5", true],
      ["{'pro': true}[tenant.tier]", true],
      ["true || context.missing == 1", true],
      ["context.missing == 1 || true", true],
    ];
    for (const [source, expected] of table) assert.equal(holds(source), expected, source);
  });

  test("that fails at run time, or is anything but true in the end, does not hold", () => {
    for (const source of [
      "context.missing",
      "context.missing == 1",
      "context.task_complexity",
      "context.n",
      "context.nothing",
      "1 / 0 == 1",
      "context.tags[9] == 'x'",
      "context.n > 'a'",
      "context.n == 5 && context.missing.deeper",
      "9223372036854775807 + 1 > 0",
      "int('x') == 1",
      "'a' + 'b' == 'ab'",
      "[1] + [2] == [1, 2]",
      "context.toString == 1",
      "context.__proto__ == 1",
    ]) {
      assert.equal(holds(source), false, source);
    }
  });

  test("sees an empty context where there is none that it can hold, and long texts only in part", () => {
    assert.equal(holds("size(context.long) == 2000"), true);
    let deep: object = {};
    for (let i = 0; i < 50; i++) deep = { deep };
    for (const context of [deep, { a: Array.from({ length: 10_000 }, () => 1) }]) {
      assert.equal(holds("size(context) == 0", { context }), true);
      assert.equal(holds("tenant.tier == 'pro'", { context }), true);
    }
  });

  test("that is wrong is refused with the place and what is wrong there", () => {
    const table: [string, string | undefined, RegExp][] = [
      ["tenant.tier = 'pro'", "1:13", /not understood/],
      ["true ||\n  (tenant.tier == 1 &&& true)", undefined, /^line \d, column \d+: .*understood/],
      ["1 ==", "1:3", /early|understood/],
      ["user.name == 'x'", "1:1", /knows context, message, session, tenant, agent, but not "user"/],
      ["true && tenant.name == 'x'", "1:15", /tenant has tier, but not "name"/],
      ["message.text == 'x'", "1:8", /length, has_images, language/],
      ["has(session.count)", undefined, /session has message_count/],
      ["context.a.exists(x, x == 1)", undefined, /macros/],
      ["[1, 2].map(x, x * 2) == []", undefined, /macros/],
      ["context.a.all(x, context.a.all(y, y == x))", undefined, /macros/],
      ["timestamp('2026-01-01T00:00:00Z') < timestamp(context.t)", undefined, /"timestamp" is not available/],
      ["process.exit(1)", undefined, /"exit" is not available/],
      ["type(context) == 1", undefined, /"type" is not available/],
      ["google.protobuf.Value{} == 1", undefined, /messages cannot be made/],
      ["context.a.matches(context.b)", undefined, /written out/],
      ["context.a.matches('(')", undefined, /RE2/],
      ["context.a.matches('(?=a)')", undefined, /RE2/],
      ["context.a.matches('a{1000}')", undefined, /cannot count/],
      [`context.a.matches('${"a".repeat(101)}')`, undefined, /100 characters/],
      [Array.from({ length: 9 }, () => "context.a.matches('a')").join(" || "), undefined, /at most 8 patterns/],
      ["'high'", "1:1", /true or false/],
      ["1 + 1", undefined, /true or false/],
      ["context", "1:1", /true or false/],
      ["[true]", undefined, /true or false/],
      ["\u0000", "1:1", /not understood/],
      ["x".repeat(2_001), undefined, /2000 characters/],
    ];
    for (const [source, place, message] of table) {
      const error = refused(source);
      assert.match(error.message, message, source.slice(0, 60));
      if (place === undefined) continue;
      assert.equal(`${error.position?.line}:${error.position?.column}`, place, source);
      assert.match(error.message, /^line \d+, column \d+: /);
    }
  });

  test("nested deeper than it may be is refused, however it is nested", () => {
    const nest = (open: string, inner: string, close: string, depth: number) =>
      open.repeat(depth) + inner + close.repeat(depth);
    for (const source of [
      nest("(true && ", "true", ")", 60),
      nest("(true && ", "true", ")", 65),
      nest("(", "true", ")", 990),
      nest("[", "1", "]", 990),
      nest("{1:", "1", "}", 400),
      nest("size(", "'a'", ")", 300),
      `${"true ? false : ".repeat(130)}true`,
      `context${"[0]".repeat(300)}`,
      `context${".a".repeat(900)}`,
      `${"1 + ".repeat(400)}1 == 1`,
      `${"context.x[".repeat(180)}1${"]".repeat(180)}`,
    ]) {
      const error = soon(source.slice(0, 40), () => refused(source));
      assert.match(error.message, /nested too deeply|opening brackets/, source.slice(0, 40));
    }
  });

  test("that is cut, broken in the middle or endless is refused soon", () => {
    for (const open of [
      "(",
      "[",
      "{1:",
      "size(",
      "a[",
      "!",
      "-",
      "true?",
      "a.b(",
      "'",
      '"""',
      "r'",
      "//",
      "1e",
      "0x",
    ]) {
      for (const middle of ["", "~"]) {
        for (const times of [1, 40, 400, 1_990]) {
          const source = (open.repeat(times) + middle).slice(0, 2_000);
          soon(source.slice(0, 20), () => {
            try {
              compileCondition(source);
            } catch (error) {
              assert.ok(error instanceof ConditionError, `${source.slice(0, 20)}: ${String(error)}`);
            }
          });
        }
      }
    }
  });

  test("whose patterns blow up elsewhere is answered soon", () => {
    const context = { a: "a".repeat(2_000), b: `${"ab".repeat(999)}!` };
    for (const pattern of [
      "(a*)*b",
      "(a|aa)+$",
      "(((((((((a*)*)*)*)*)*)*)*)*)*b",
      "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)x",
      "(x+x+)+y",
      "(a?a?a?a?a?a?a?a?a?a?)*aaaaaaaaaaaaaaaaaaaaaa!",
      "(?i)(a|b|c)*(a|b|c)*(a|b|c)*(a|b|c)*(a|b|c)*z",
      `[^z]*${".?".repeat(40)}z`,
      "\\pL*".repeat(20),
    ]) {
      const source = Array.from(
        { length: 4 },
        (_, i) => `context.${"ab"[i % 2]}.matches('${pattern.replaceAll("\\", "\\\\")}') == ${i > 4}`,
      ).join(" || ");
      const condition = soon(pattern, () => compileCondition(source));
      soon(pattern, () => condition.holds({ ...facts, context }));
    }
  });

  test("is answered soon for the largest source over the largest context", () => {
    const context = {
      a: `${"a".repeat(1_000)}b${"a".repeat(998)}`,
      b: `${"a".repeat(998)}b`,
      l: Array.from({ length: 2_000 }, (_, i) => `${i}`),
      m: Array.from({ length: 2_000 }, (_, i) => `${i}`),
    };
    for (const part of ["context.a.contains(context.b)", "context.l == context.m", "context.a in context.l"]) {
      const many = Math.min(60, Math.floor(1_900 / (part.length + 4)));
      const source = Array.from({ length: many }, () => part).join(" && ");
      const condition = soon(part, () => compileCondition(source));
      soon(part, () => condition.holds({ ...facts, context }));
    }
  });

  test("never throws anything but its own error, whatever it is made of", () => {
    const piece = fc.constantFrom(
      ..."context message session tenant agent . [ ] ( ) { } , : ? ! - + * / % == != < <= in && || 'a' \"b\" 1 1.5 -1 9e999 0x1 1u b'x' r'\\' true false null has matches size tier id x \n // é 😀 \u0000 @ $ `".split(
        " ",
      ),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), fc.jsonValue(), (pieces, value) => {
        try {
          const condition = compileCondition(pieces.join(" ").slice(0, 2_000));
          assert.equal(typeof condition.holds({ ...facts, context: { x: value } }), "boolean");
        } catch (error) {
          assert.ok(error instanceof ConditionError, String(error));
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("takes any JSON as a context and leaves it as it is", () => {
    const condition = compileCondition("context == context && context.a != 1 || has(context.b)");
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (context) => {
        const before = JSON.stringify(context);
        assert.equal(typeof condition.holds({ ...facts, context }), "boolean");
        assert.equal(JSON.stringify(context), before);
      }),
    );
  });

  test("is compiled once while it is in use, and a thousand others do not stay", () => {
    const source = "tenant.tier == 'kept'";
    const first = compileCondition(source);
    for (let i = 0; i < 200; i++) compileCondition(`message.length > ${i}`);
    assert.equal(compileCondition(source), first);
    for (let i = 0; i < 1_000; i++) compileCondition(`message.length < ${i}`);
    assert.notEqual(compileCondition(source), first);
  });
});
