import type { parse } from "@bufbuild/cel";

type Parsed = ReturnType<typeof parse>;
type Expr = Parsed["expr"];

/** Longest source, in UTF-16 units. */
const MAX_SOURCE = 2_000;
/** Opening brackets of a source, those in texts too: the parser's time rises with the square of how deep they are. */
const MAX_BRACKETS = 64;
const MAX_DEPTH = 50;
const MAX_PATTERNS = 8;
const MAX_PATTERN = 100;

/** A condition that cannot be compiled; the message is for whoever wrote it and quotes nothing but its own names. */
export class ConditionError extends Error {
  override readonly name = "ConditionError";
  /** Where, both from 1; undefined when it is about the whole. */
  readonly position: { readonly line: number; readonly column: number } | undefined;

  constructor(message: string, position?: { line: number; column: number }) {
    super(position === undefined ? message : `line ${position.line}, column ${position.column}: ${message}`);
    this.position = position;
  }

  /** An error at an offset of the source, in UTF-16 units. */
  static at(source: string, offset: number, message: string): ConditionError {
    const before = source.slice(0, offset).split(/\r\n|\r|\n/);
    return new ConditionError(message, { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 });
  }
}

/** The variables, and the fields of those whose fields are fixed. */
const VARIABLES: ReadonlyMap<string, readonly string[] | undefined> = new Map([
  ["context", undefined],
  ["message", ["length", "has_images", "language"]],
  ["session", ["message_count"]],
  ["tenant", ["tier"]],
  ["agent", ["id"]],
]);

/** Operators and functions that cost no more than their operands are long. */
const PREDICATES = ["_&&_", "_||_", "!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in"];
const TEXT_PREDICATES = ["contains", "startsWith", "endsWith", "matches", "bool"];
const OTHERS = ["_?_:_", "_[_]", "_+_", "_-_", "_*_", "_/_", "_%_", "-_", "size", "int", "uint", "double", "string"];
const YES_OR_NO = new Set([...PREDICATES, ...TEXT_PREDICATES, "_?_:_", "_[_]"]);
const FUNCTIONS = new Set([...PREDICATES, ...TEXT_PREDICATES, ...OTHERS]);

/** Throws {@link ConditionError} for a source that would take the parser long. */
export function assertParsable(source: string): void {
  if (source.length > MAX_SOURCE) throw new ConditionError(`is longer than ${MAX_SOURCE} characters`);
  if (source.split(/[([{]/).length - 1 > MAX_BRACKETS) {
    throw new ConditionError(`has more than ${MAX_BRACKETS} opening brackets`);
  }
}

/**
 * Throws {@link ConditionError} unless the expression names only what there is and its cost is bounded.
 * `invalidPattern` says what is wrong with a pattern.
 */
export function assertWithinLimits(
  source: string,
  { expr, sourceInfo }: Parsed,
  invalidPattern: (pattern: string) => string | undefined,
): void {
  let patterns = 0;
  const failure = ({ id }: Expr, message: string): ConditionError => {
    const offset = sourceInfo?.positions[String(id)];
    return offset === undefined ? new ConditionError(message) : ConditionError.at(source, offset, message);
  };
  const fail = (node: Expr, message: string): never => {
    throw failure(node, message);
  };
  const checkPattern = (call: Expr, pattern: Expr | undefined): void => {
    const constant = pattern?.exprKind.case === "constExpr" ? pattern.exprKind.value.constantKind : undefined;
    if (constant?.case !== "stringValue") throw failure(call, "matches needs a pattern that is written out");
    if (constant.value.length > MAX_PATTERN) fail(call, `a pattern has at most ${MAX_PATTERN} characters`);
    if (constant.value.includes("{")) fail(call, "patterns cannot count with { }");
    if (++patterns > MAX_PATTERNS) fail(call, `a condition has at most ${MAX_PATTERNS} patterns`);
    if (invalidPattern(constant.value) !== undefined) fail(call, "matches needs a pattern in the syntax of RE2");
  };
  const inner = (node: Expr): (Expr | undefined)[] => {
    const { exprKind } = node;
    switch (exprKind.case) {
      case "constExpr":
        return [];
      case "identExpr": {
        const { name } = exprKind.value;
        if (!VARIABLES.has(name)) fail(node, `knows ${[...VARIABLES.keys()].join(", ")}, but not ${shown(name)}`);
        return [];
      }
      case "selectExpr": {
        const { operand, field } = exprKind.value;
        const variable = operand?.exprKind.case === "identExpr" ? operand.exprKind.value.name : "";
        const fields = VARIABLES.get(variable);
        if (fields?.includes(field) === false) {
          fail(node, `${variable} has ${fields.join(", ")}, but not ${shown(field)}`);
        }
        return [operand];
      }
      case "callExpr": {
        const { function: name, target, args } = exprKind.value;
        if (!FUNCTIONS.has(name)) fail(node, `the function ${shown(name)} is not available`);
        if (name === "matches") checkPattern(node, args.at(-1));
        return [target, ...args];
      }
      case "listExpr":
        return exprKind.value.elements;
      case "structExpr": {
        const { messageName, entries } = exprKind.value;
        if (messageName !== "") fail(node, "messages cannot be made");
        return entries.flatMap(({ keyKind, value }) => [keyKind.case === "mapKey" ? keyKind.value : undefined, value]);
      }
      case "comprehensionExpr":
        return fail(node, "macros that go through lists and maps are not available; use in");
      default:
        return fail(node, "is not a CEL expression");
    }
  };
  const pending: [Expr, number][] = [[expr, 1]];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [node, depth] = next;
    if (depth > MAX_DEPTH) fail(node, "is nested too deeply");
    for (const one of inner(node)) if (one !== undefined) pending.push([one, depth + 1]);
  }
  if (!canBeYesOrNo(expr)) fail(expr, "must be true or false in the end, such as tenant.tier == 'pro'");
}

function canBeYesOrNo({ exprKind }: Expr): boolean {
  switch (exprKind.case) {
    case "constExpr":
      return exprKind.value.constantKind.case === "boolValue";
    case "callExpr":
      return YES_OR_NO.has(exprKind.value.function);
    case "selectExpr":
      return true;
    default:
      return false;
  }
}

/** A name of the source, short enough for a message. */
function shown(name: string): string {
  const [first = "", ...more] = [...name].slice(0, 41);
  return `"${[first, ...more]
    .slice(0, 40)
    .join("")
    .replaceAll(/[^\w.$@[\]&|!=<>+*/%?:-]/gu, "?")}"`;
}
