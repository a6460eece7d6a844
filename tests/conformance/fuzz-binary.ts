import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { anyDouble, anyLong, anyNumber, anyText, type Known, tooMuch } from "./fuzz-values.ts";
import type { Random } from "./random.ts";

export const BINARY_FLAWS = [
  "none",
  "none",
  "none",
  "wrong-type",
  "wrong-type",
  "unknown",
  "oversize",
  "broken",
] as const;
export type BinaryFlaw = (typeof BINARY_FLAWS)[number];

/** A request as protobuf's bytes that may be anything, written field by field so that no library makes it right. */
export function fuzzBinary(desc: DescMessage, random: Random, known: Known, how: BinaryFlaw): Uint8Array {
  const writer = new BinaryWriter();
  const victim = how === "wrong-type" || how === "oversize" ? random.below(desc.fields.length) : -1;
  for (const [i, field] of desc.fields.entries()) {
    if (i === victim) flawed(writer, field, random, how);
    else if (random.chance(0.75)) writeField(writer, field, random, known, 0);
  }
  if (how === "unknown") {
    writer.tag(random.pick([900, 15_000, 536_870_911]), WireType.LengthDelimited).string("unknown");
    if (random.chance(0.5)) writer.tag(901, WireType.Varint).uint64(anyLong(random) & 0xffffn);
  }
  const bytes = writer.finish();
  if (how !== "broken" || bytes.length === 0) return bytes;
  const at = random.below(bytes.length);
  if (random.chance(0.4)) return bytes.subarray(0, at);
  bytes[at] = random.below(256);
  return bytes;
}

function flawed(writer: BinaryWriter, field: DescField, random: Random, how: BinaryFlaw): void {
  if (how === "oversize") {
    writer.tag(field.number, WireType.LengthDelimited).string("x".repeat(tooMuch(random)));
    return;
  }
  switch (random.below(5)) {
    case 0:
      writer.tag(field.number, WireType.Varint).uint32(random.below(1_000_000));
      return;
    case 1:
      writer.tag(field.number, WireType.Bit64).fixed64(anyLong(random) & 0xffffffffn);
      return;
    case 2:
      writer.tag(field.number, WireType.Bit32).fixed32(random.below(4_000_000));
      return;
    case 3:
      // Not UTF-8.
      writer.tag(field.number, WireType.LengthDelimited).bytes(Uint8Array.of(0xff, 0xfe, 0xc0, 0x80));
      return;
    default:
      writer.tag(field.number, WireType.StartGroup).tag(field.number, WireType.EndGroup);
  }
}

function writeField(writer: BinaryWriter, field: DescField, random: Random, known: Known, depth: number): void {
  const times = field.fieldKind === "list" || field.fieldKind === "map" ? random.pick([0, 1, 2, 33]) : 1;
  for (let i = 0; i < times; i++) {
    if (field.fieldKind === "map") {
      writer.tag(field.number, WireType.LengthDelimited).fork();
      writer.tag(1, WireType.LengthDelimited).string(anyText(random, "key", known));
      writer.tag(2, WireType.LengthDelimited).string(anyText(random, "value", known));
      writer.join();
    } else if (field.message !== undefined) {
      writer.tag(field.number, WireType.LengthDelimited).fork();
      const inner = depth < 3 ? field.message.fields : [];
      for (const one of inner) if (random.chance(0.35)) writeField(writer, one, random, known, depth + 1);
      writer.join();
    } else if (field.enum !== undefined) {
      writer.tag(field.number, WireType.Varint).int32(random.pick([0, 1, 2, 3, 99, -1]));
    } else {
      writeScalar(writer, field, field.scalar ?? ScalarType.STRING, random, known);
    }
  }
}

function writeScalar(writer: BinaryWriter, field: DescField, scalar: ScalarType, random: Random, known: Known): void {
  switch (scalar) {
    case ScalarType.STRING:
      writer.tag(field.number, WireType.LengthDelimited).string(anyText(random, field.name, known));
      return;
    case ScalarType.BYTES:
      writer.tag(field.number, WireType.LengthDelimited).bytes(Buffer.from(anyText(random, field.name, known)));
      return;
    case ScalarType.BOOL:
      writer.tag(field.number, WireType.Varint).bool(random.chance(0.5));
      return;
    case ScalarType.DOUBLE:
      writer.tag(field.number, WireType.Bit64).double(anyDouble(random));
      return;
    case ScalarType.INT32:
      writer.tag(field.number, WireType.Varint).int32(anyNumber(random) | 0);
      return;
    case ScalarType.INT64:
      writer.tag(field.number, WireType.Varint).int64(anyLong(random));
      return;
    default:
      writer.tag(field.number, WireType.Varint).uint32(random.below(1_000));
  }
}
