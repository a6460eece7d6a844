import { defineTool } from "#platform/plugin/define-tool.ts";
import { inDecimal } from "./arithmetic/decimal.ts";
import { evaluate, MAX_LENGTH } from "./arithmetic/evaluate.ts";

/** Does arithmetic. */
export const calculator = defineTool<{ expression: string }>({
  name: "calculator",
  description:
    "Evaluates an arithmetic expression exactly. Operators + - * / % ^ and brackets; % is the remainder of a division " +
    "and has the sign of the left side. Functions sqrt, abs, round(x) or round(x, digits), floor, ceil, min, max, ln, " +
    "log10, exp, sin, cos, tan (in radians). Constants pi and e. The result is decimal text; exact is false when it " +
    "had to be rounded.",
  input: {
    type: "object",
    properties: {
      expression: {
        type: "string",
        description: "Such as (17 * 23 + 4) / 5 or round(sqrt(2) * 100, 2).",
        maxLength: MAX_LENGTH,
      },
    },
    required: ["expression"],
    additionalProperties: false,
  },
  risk: "read_only",
  concurrencySafe: true,
  idempotent: true,
  timeoutMs: 5_000,
  maxOutputBytes: 4_096,
  category: "compute",
  run: ({ expression }) => ({ structured: inDecimal(evaluate(expression)) }),
});
