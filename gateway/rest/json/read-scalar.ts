import type { DescEnum } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { type Json, JsonNumber } from "./value.ts";

/** What a value should have been, for people: `must be …`. */
export class Mismatch {
  readonly expected: string;

  constructor(expected: string) {
    this.expected = expected;
  }
}

const INTEGER = /^-?(?:0|[1-9][0-9]*)$/;
const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
const BASE64 = /^[A-Za-z0-9+/_-]*={0,2}$/;
/** More digits than any 64-bit integer has. */
const MAX_INTEGER_LENGTH = 24;
const FLOAT_MAX = 3.4028234663852886e38;

/** Range of each integer type. */
const RANGES: { readonly [T in ScalarType]?: readonly [bigint, bigint] } = {
  [ScalarType.INT32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.SINT32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.SFIXED32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.UINT32]: [0n, 2n ** 32n - 1n],
  [ScalarType.FIXED32]: [0n, 2n ** 32n - 1n],
  [ScalarType.INT64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.SINT64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.SFIXED64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.UINT64]: [0n, 2n ** 64n - 1n],
  [ScalarType.FIXED64]: [0n, 2n ** 64n - 1n],
};

const WIDE: ReadonlySet<ScalarType> = new Set([
  ScalarType.INT64,
  ScalarType.SINT64,
  ScalarType.SFIXED64,
  ScalarType.UINT64,
  ScalarType.FIXED64,
]);

export type ScalarValue = string | number | bigint | boolean | Uint8Array;

/** Reads a scalar as ProtoJSON has it; integers and floats also as strings. */
export function readScalar(type: ScalarType, json: Json): ScalarValue | Mismatch {
  switch (type) {
    case ScalarType.STRING:
      return typeof json === "string" ? json : new Mismatch("a string");
    case ScalarType.BOOL:
      return typeof json === "boolean" ? json : new Mismatch("true or false");
    case ScalarType.BYTES:
      return readBytes(json);
    case ScalarType.DOUBLE:
      return readFloat(json, Number.MAX_VALUE);
    case ScalarType.FLOAT:
      return readFloat(json, FLOAT_MAX);
    default:
      return readInteger(type, json);
  }
}

/** Reads an enum value by name or number. */
export function readEnum(desc: DescEnum, json: Json): number | Mismatch {
  if (typeof json === "string") {
    const value = desc.values.find(({ name }) => name === json);
    if (value !== undefined) return value.number;
  } else if (json instanceof JsonNumber) {
    const value = readInteger(ScalarType.INT32, json);
    if (typeof value === "number" && (desc.open || desc.value[value] !== undefined)) return value;
  }
  return new Mismatch(`one of ${desc.values.map(({ name }) => name).join(", ")}`);
}

function readInteger(type: ScalarType, json: Json): number | bigint | Mismatch {
  const [min, max] = RANGES[type] ?? [0n, 0n];
  const value = integerOf(json);
  if (value === undefined || value < min || value > max) return new Mismatch(`a whole number from ${min} to ${max}`);
  return WIDE.has(type) ? value : Number(value);
}

/** 1.0 and 1e3 are whole numbers too, as long as no digit is lost. */
function integerOf(json: Json): bigint | undefined {
  const text = json instanceof JsonNumber ? json.text : json;
  if (typeof text !== "string") return undefined;
  if (INTEGER.test(text)) return text.length > MAX_INTEGER_LENGTH ? undefined : BigInt(text);
  if (!NUMBER.test(text)) return undefined;
  const number = Number(text);
  return Number.isSafeInteger(number) ? BigInt(number) : undefined;
}

function readFloat(json: Json, max: number): number | Mismatch {
  if (json === "NaN" || json === "Infinity" || json === "-Infinity") return Number(json);
  const text = json instanceof JsonNumber ? json.text : json;
  if (typeof text === "string" && NUMBER.test(text)) {
    const value = Number(text);
    if (Math.abs(value) <= max) return value;
  }
  return new Mismatch(`a number of magnitude up to ${max}`);
}

/** Standard and URL-safe alphabets, with or without padding (RFC 4648 §4 and §5). */
function readBytes(json: Json): Uint8Array | Mismatch {
  const expected = new Mismatch("a string in base64");
  if (typeof json !== "string" || !BASE64.test(json)) return expected;
  const digits = json.replace(/=+$/, "");
  const padding = json.length - digits.length;
  if (digits.length % 4 === 1 || (padding > 0 && (digits.length + padding) % 4 !== 0)) return expected;
  return Uint8Array.from(Buffer.from(digits, "base64url"));
}
