import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { ToolContext } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import { calculator } from "./calculator.ts";

function calculate(expression: string): { result: string; exact: boolean } {
  const output = calculator.run({ expression }, {} as ToolContext, AbortSignal.abort(), {});
  return (output as { structured: { result: string; exact: boolean } }).structured;
}

function problem(expression: string): string {
  try {
    calculate(expression);
  } catch (error) {
    assert.ok(error instanceof ToolError, `${expression.slice(0, 80)}: ${error}`);
    return error.message;
  }
  return assert.fail(`${expression} has a result`);
}

describe("calculator", () => {
  test("knows operators, precedence, brackets and what people write for them", () => {
    const table: Record<string, string> = {
      "17 * 23": "391",
      "1 + 2 * 3": "7",
      "(1 + 2) * 3": "9",
      "2 - 3 - 4": "-5",
      "100 / 8 / 2": "6.25",
      "2 ^ 3 ^ 2": "512",
      "2 ** 3": "8",
      "-2 ^ 2": "-4",
      "(-2) ^ 2": "4",
      "2 ^ -3": "0.125",
      "2 * -3": "-6",
      "2 - -3": "5",
      "+-+1": "-1",
      "10 % 3": "1",
      "-7 % 3": "-1",
      "7 % (-3)": "1",
      "7.5 % 2": "1.5",
      "0 ^ 0": "1",
      "0 ^ 5": "0",
      "(-1) ^ 99999": "-1",
      "(2/3) ^ -2": "2.25",
      "1,234 × 5": "6170",
      "1,234,567.5 − 0.5": "1234567",
      "8 ÷ 4": "2",
      "（１＋２）×３": "9",
      "1 + 1 =": "2",
      "1 + 1 = ?": "2",
      "\t1\n+ 1 ": "2",
      ".5 + 5.": "5.5",
      "1e3 + 2.5E-1": "1000.25",
      "0 - 0.0": "0",
      "-0": "0",
    };
    for (const [expression, result] of Object.entries(table)) {
      assert.deepEqual(calculate(expression), { result, exact: true }, expression);
    }
  });

  test("is exact in decimals and in long numbers, and says when it had to round", () => {
    const table: [string, string, boolean][] = [
      ["0.1 + 0.2", "0.3", true],
      ["0.1 * 3", "0.3", true],
      ["1.1 * 1.1", "1.21", true],
      ["4.35 * 100", "435", true],
      ["1 / 3 * 3", "1", true],
      ["2 ^ 100", "1267650600228229401496703205376", true],
      ["9999999999999999 * 9999999999999999", "99999999999999980000000000000001", true],
      ["1e15 + 0.3", "1000000000000000.3", true],
      ["1 / 3", "0.333333333333333", false],
      ["-2 / 3", "-0.666666666666667", false],
      ["10 ^ 30 / 7", "1.42857142857143e29", false],
      ["10 ^ 60", "1e60", false],
      ["1 / 10 ^ 60", "1e-60", false],
      ["(1 / 3 ^ 400 + 1 / 7 ^ 200) * 7 ^ 200", "1", false],
    ];
    for (const [expression, result, exact] of table)
      assert.deepEqual(calculate(expression), { result, exact }, expression);
  });

  test("knows functions and constants, and shows no binary noise", () => {
    const exact: Record<string, string> = {
      "sqrt(144)": "12",
      "sqrt(0)": "0",
      "sqrt(1/4)": "0.5",
      "sqrt(2.25)": "1.5",
      "sqrt(10^40)": "100000000000000000000",
      "abs(-1.5)": "1.5",
      "abs(1)": "1",
      "round(2.5)": "3",
      "round(-2.5)": "-3",
      "round(2.4999)": "2",
      "round(1.005, 2)": "1.01",
      "round(1234.567, -2)": "1200",
      "floor(-1.5)": "-2",
      "floor(1.5)": "1",
      "ceil(-1.5)": "-1",
      "ceil(1.2)": "2",
      "min(3, 1, 2)": "1",
      "max(1,234)": "234",
      "max((1,234), 5)": "1234",
      "max(-1)": "-1",
      "MAX(1, 2) + Min(3, 4)": "5",
      "ln(1)": "0",
      "exp(0)": "1",
    };
    for (const [expression, result] of Object.entries(exact)) {
      assert.deepEqual(calculate(expression), { result, exact: true }, expression);
    }
    const rounded: Record<string, string> = {
      "sqrt(2) ^ 2": "2",
      "sqrt(2) ^ 2 - 2": "0",
      "sqrt(2) - sqrt(2)": "0",
      "round(sqrt(2), 3)": "1.414",
      "ceil(sqrt(2) * sqrt(2))": "2",
      "floor(e)": "2",
      pi: "3.14159265358979",
      "2 * π": "6.28318530717959",
      "sin(pi)": "0",
      "sin(pi / 6)": "0.5",
      "cos(pi / 2)": "0",
      "cos(pi)": "-1",
      "tan(pi / 4)": "1",
      "ln(e)": "1",
      "log10(1000)": "3",
      "exp(1)": "2.71828182845905",
      "8 ^ (1 / 3)": "2",
      "min(pi, 3.2, e)": "2.71828182845905",
      "0 * pi": "0",
    };
    for (const [expression, result] of Object.entries(rounded)) {
      assert.deepEqual(calculate(expression), { result, exact: false }, expression);
    }
  });

  test("says what is wrong with an expression, and where", () => {
    const table: Record<string, RegExp> = {
      "": /^The expression is empty\.$/,
      " =": /^The expression is empty\.$/,
      "1 +": /^Syntax error at position 4: the expression ends too early\.$/,
      "(1 + 2": /^Syntax error at position 7: the expression ends too early, expected "\)"\.$/,
      "1 + 2)": /^Syntax error at position 6: unexpected "\)"\.$/,
      "1 + * 2": /^Syntax error at position 5: unexpected "\*"\.$/,
      "1 2": /^Syntax error at position 3: unexpected "2"\.$/,
      "2(3)": /^Syntax error at position 2: unexpected "\("\.$/,
      "2π": /^Syntax error at position 2: unexpected "π"\.$/,
      "1,23": /^Syntax error at position 2: unexpected ","\.$/,
      "1 + 😀": /^Syntax error at position 5: unexpected "😀"\.$/,
      "()": /^Syntax error at position 2: unexpected "\)"\.$/,
      "max()": /^Syntax error at position 5: unexpected "\)"\.$/,
      "1 + process.exit(1)": /^Unknown name "process" at position 5\. Known are sqrt, .*, pi, e\.$/,
      "constructor(1)": /^Unknown name "constructor" at position 1\./,
      "log(5)": /^Unknown name "log" at position 1\. Known are .*ln, log10/,
      sqrt: /^Position 5: sqrt needs an argument in brackets\.$/,
      "round(1, 2, 3)": /^Position 1: round takes 1 to 2 arguments, not 3\.$/,
      "sqrt(1, 2)": /^Position 1: sqrt takes 1 arguments, not 2\.$/,
      "round(1, 0.5)": /^round takes a whole number of digits between -100 and 100 \(at position 1\)\.$/,
      "round(1, 1000000000)": /^round takes a whole number of digits/,
      "200 + 15%": /^Position 9: % is a remainder\. Write 15\/100 for 15 percent/,
      "10% - 3": /^Position 3: % is a remainder\./,
    };
    for (const [expression, message] of Object.entries(table)) assert.match(problem(expression), message, expression);
  });

  test("says what an operation cannot do, and where", () => {
    const table: Record<string, string> = {
      "1 / 0": "Division by zero (at position 3).",
      "1 / (2 - 2)": "Division by zero (at position 3).",
      "5 % 0": "Division by zero (at position 3).",
      "0 ^ -1": "Division by zero (at position 3).",
      "1 / sin(pi)": "Division by zero (at position 3).",
      "10 ^ 308 * 10": "Overflow: a result is larger than 1.8e308 (at position 10).",
      "10 ^ 400": "Overflow: a result is larger than 1.8e308 (at position 4).",
      "99 ^ 99 ^ 99": "Overflow: a result is larger than 1.8e308 (at position 4).",
      "exp(1000)": "Overflow: a result is larger than 1.8e308 (at position 1).",
      "1e400": "Overflow: a result is larger than 1.8e308.",
      "1e99999999999999999999": "Overflow: a result is larger than 1.8e308.",
      "1e-400": "Underflow: a result is too close to zero.",
      "2 ^ -2000": "Underflow: a result is too close to zero (at position 3).",
      "sqrt(-1)": "The square root of a negative number is not a real number (at position 1).",
      "(-8) ^ (1 / 3)": "The result is not a real number (at position 6).",
      "ln(0)": "A logarithm needs a number greater than zero (at position 1).",
      "log10(-1)": "A logarithm needs a number greater than zero (at position 1).",
      "tan(pi / 2)": "The tangent has no value there (at position 1).",
    };
    for (const [expression, message] of Object.entries(table)) assert.equal(problem(expression), message, expression);
  });

  test("has limits on length and depth, and ends on hostile expressions", () => {
    assert.match(problem("1".repeat(1_001)), /longer than 1000 characters/);
    assert.equal(calculate(`${"(".repeat(63)}1${")".repeat(63)}`).result, "1");
    for (const deep of ["(".repeat(70), "-".repeat(900), "2^".repeat(400), "abs(".repeat(200)]) {
      assert.match(problem(`${deep}1`), /nested more than 64 levels deep/);
    }
    assert.match(problem("9".repeat(1_000)), /Overflow/);
    assert.equal(calculate(`0.${"9".repeat(900)}`).result, "1");
    const hostile = ["9^99999999*", "1/999999999999937+", "7^300/3^300+", "sqrt(2^1000-1)*", "1.000001^999999999+"];
    for (const part of hostile) {
      const expression = `${part.repeat(Math.floor(990 / part.length))}1`;
      try {
        calculate(expression);
      } catch (error) {
        assert.ok(error instanceof ToolError, String(error));
      }
    }
  });

  test("answers or explains whatever it is given", () => {
    const token = fc.constantFrom(..."0 1 9 . , + - * / % ^ ( ) e pi sqrt round max ln e5 1,234 = ? x ×".split(" "));
    const text = fc.oneof(
      fc.string(),
      fc.array(token, { maxLength: 30 }).map((tokens) => tokens.join("")),
    );
    fc.assert(
      fc.property(text, (expression) => {
        try {
          const { result } = calculate(expression);
          assert.match(result, /^-?\d+(\.\d+)?(e-?\d+)?$/);
        } catch (error) {
          assert.ok(error instanceof ToolError, `${expression}: ${error}`);
          assert.ok(error.message.length < 300);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test("agrees with exact fractions for + - * /", () => {
    fc.assert(
      fc.property(tree, ({ expression, value }) => {
        if (value === undefined) {
          assert.match(problem(expression), /^Division by zero/);
          return;
        }
        const { result, exact } = calculate(expression);
        const shown = decimal(result);
        const difference = abs(minus(shown, value));
        if (exact) assert.equal(difference.n, 0n, `${expression} = ${result}`);
        // 15 digits, rounded: at most 5 in the 16th.
        else assert.ok(isLess(difference, { n: abs(value).n, d: value.d * 10n ** 14n }), `${expression} = ${result}`);
        const short = isLess(abs(value), { n: 10n ** 20n, d: 1n }) && (value.n * 10n ** 20n) % value.d === 0n;
        assert.ok(exact || !short, `${expression} = ${result} was rounded without need`);
      }),
      { numRuns: 1_000 },
    );
  });
});

/** A fraction of the test's own, not in lowest terms. */
interface Fraction {
  n: bigint;
  d: bigint;
}

interface Tree {
  expression: string;
  /** Undefined where something is divided by zero. */
  value: Fraction | undefined;
}

const minus = (a: Fraction, b: Fraction): Fraction => ({ n: a.n * b.d - b.n * a.d, d: a.d * b.d });
const abs = ({ n, d }: Fraction): Fraction => ({ n: n < 0n ? -n : n, d: d < 0n ? -d : d });
const isLess = (a: Fraction, b: Fraction) => a.n * b.d < b.n * a.d;

function decimal(text: string): Fraction {
  const [, digits = "", fraction = "", exponent = "0"] = /^(-?\d+)(?:\.(\d+))?(?:e(-?\d+))?$/.exec(text) ?? [];
  const power = BigInt(exponent) - BigInt(fraction.length);
  const n = BigInt(digits + fraction);
  return power < 0n ? { n, d: 10n ** -power } : { n: n * 10n ** power, d: 1n };
}

function combine(left: Tree, sign: string, right: Tree): Tree {
  const expression = `(${left.expression} ${sign} ${right.expression})`;
  const [a, b] = [left.value, right.value];
  if (a === undefined || b === undefined) return { expression, value: undefined };
  switch (sign) {
    case "+":
      return { expression, value: { n: a.n * b.d + b.n * a.d, d: a.d * b.d } };
    case "-":
      return { expression, value: minus(a, b) };
    case "*":
      return { expression, value: { n: a.n * b.n, d: a.d * b.d } };
    default:
      return { expression, value: b.n === 0n ? undefined : { n: a.n * b.d, d: a.d * b.n } };
  }
}

const leaf = fc.tuple(fc.bigInt({ min: 0n, max: 10n ** 12n }), fc.integer({ min: 0, max: 6 })).map(([n, places]) => {
  const digits = n.toString().padStart(places + 1, "0");
  const point = digits.length - places;
  const expression = places === 0 ? digits : `${digits.slice(0, point)}.${digits.slice(point)}`;
  return { expression, value: { n, d: 10n ** BigInt(places) } } satisfies Tree;
});

const sign = fc.constantFrom("+", "-", "*", "/");

const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, depthSize: "large" },
    leaf,
    fc.tuple(tie("tree"), sign, tie("tree")).map(([left, operator, right]) => combine(left, operator, right)),
  ),
}));
