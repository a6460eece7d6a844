import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  create,
  createRegistry,
  fromBinary,
  fromJson,
  type JsonValue,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { CHILD, COLOR, KITCHEN } from "../../testing/kitchen.ts";
import { schema } from "../../testing/schema.ts";
import { MessageWriter } from "./write-message.ts";

const { message } = schema({ messages: { Kitchen: KITCHEN, Child: CHILD }, enums: { Color: COLOR } });
const Kitchen = message("Kitchen");
const writer = new MessageWriter(createRegistry(ErrorInfoSchema));

/** Through text, as a client gets it. */
function write(init: object, by = writer): Record<string, unknown> {
  return JSON.parse(JSON.stringify(by.write(Kitchen, create(Kitchen, init as never) as Message))) as Record<
    string,
    unknown
  >;
}

describe("the writer of JSON messages", () => {
  test("writes what the library writes with snake_case names and implicit fields", () => {
    const init = fc.record(
      {
        doubleValue: fc.double(),
        floatValue: fc.constantFrom(1.5, Number.NaN, Number.NEGATIVE_INFINITY),
        int64Value: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        boolValue: fc.boolean(),
        stringValue: fc.string(),
        bytesValue: fc.uint8Array(),
        color: fc.constantFrom(0, 2, 9),
        maybeText: fc.constantFrom("", "x"),
        maybeNumber: fc.constantFrom(0, 7),
        numbers: fc.array(fc.integer()),
        colors: fc.array(fc.constantFrom(0, 1)),
        labels: fc.dictionary(fc.string(), fc.string()),
        byNumber: fc.constant({ 5: 7n }),
        byFlag: fc.constant({ true: { name: "x" } }),
        child: fc.record({ name: fc.string(), bigSize: fc.constant(3n) }),
        children: fc.array(fc.record({ name: fc.string() })),
        wrappedText: fc.string(),
        wrappedLong: fc.constant(5n),
        time: fc.constant({ seconds: 5n, nanos: 120_000_000 }),
        span: fc.constant({ seconds: -1n, nanos: -500_000_000 }),
        facts: fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.boolean(), fc.integer(), fc.constant(null))),
        anything: fc.constant({ kind: { case: "nullValue", value: 0 } }),
        choice: fc.constantFrom({ case: "choiceText", value: "" }, { case: "choiceChild", value: { name: "y" } }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(init, (fields) => {
        const written = create(Kitchen, fields as never) as Message;
        const expected = toJson(Kitchen, written, { useProtoFieldName: true, alwaysEmitImplicit: true });
        assert.deepEqual(
          JSON.parse(JSON.stringify(writer.write(Kitchen, written))),
          JSON.parse(JSON.stringify(expected)),
        );
      }),
    );
  });

  test("shows masks in snake_case", () => {
    assert.equal(write({ mask: { paths: ["display_name", "child.big_size"] } })["mask"], "display_name,child.big_size");
  });

  test("shows an Any of a known type by its fields, and any other as base64", () => {
    const known = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "X", metadata: { a: "b" } }));
    assert.deepEqual(write({ any: known })["any"], {
      "@type": "type.googleapis.com/google.rpc.ErrorInfo",
      reason: "X",
      metadata: { a: "b" },
    });
    const unknown = { typeUrl: "type.googleapis.com/of.Tomorrow", value: new Uint8Array([1, 2, 3]) };
    assert.deepEqual(write({ any: unknown })["any"], { "@type": unknown.typeUrl, value: "AQID" });
    const damaged = { typeUrl: "type.googleapis.com/google.rpc.ErrorInfo", value: new Uint8Array([0xff]) };
    assert.deepEqual(write({ any: damaged })["any"], { "@type": damaged.typeUrl, value: "/w==" });
  });

  test("one value without a JSON form does not cost the whole answer", () => {
    const answer = write({
      stringValue: "here",
      time: { seconds: 10n ** 15n },
      anything: { kind: { case: "numberValue", value: Number.NaN } },
      color: 99,
    });
    assert.equal(answer["string_value"], "here");
    assert.equal(answer["time"], null);
    assert.equal(answer["anything"], "NaN");
    assert.equal(answer["color"], 99);
  });

  test("drops fields that a newer service sent", () => {
    const newer = schema({
      messages: { Kitchen: { ...KITCHEN, brand_new: "string" }, Child: CHILD },
      enums: { Color: COLOR },
    }).message("Kitchen");
    const bytes = toBinary(newer, fromJson(newer, { brandNew: "x", stringValue: "y" }));
    const json = writer.write(Kitchen, fromBinary(Kitchen, bytes)) as Record<string, JsonValue>;
    assert.equal(json["string_value"], "y");
    assert.deepEqual(
      Object.keys(json).filter((name) => name.includes("new")),
      [],
    );
  });

  test("shows aliases beside the fields, and only where the field is shown", () => {
    const aliases = new Map([
      ["text", "string_value"],
      ["at", "time"],
    ]);
    const aliased = new MessageWriter(createRegistry(), (desc) => (desc === Kitchen ? aliases : undefined));
    const answer: Record<string, JsonValue> = write({ stringValue: "x" }, aliased) as Record<string, JsonValue>;
    assert.equal(answer["text"], "x");
    assert.equal("at" in answer, false);
  });

  test("a map entry named __proto__ is an entry", () => {
    const labels = Object.fromEntries([["__proto__", "x"]]);
    const text = JSON.stringify(writer.write(Kitchen, create(Kitchen, { labels } as never) as Message));
    assert.match(text, /"labels":\{"__proto__":"x"\}/);
  });
});
