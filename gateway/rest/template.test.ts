import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseTemplate, type Segment } from "./template.ts";

describe("a path template", () => {
  test("has literals, one-segment and rest wildcards, variables and a verb", () => {
    assert.deepEqual(parseTemplate("/v1/a.b/*/{x}/{y.z=shelves/*}/{rest=**}:undo"), {
      segments: [
        { kind: "literal", value: "v1" },
        { kind: "literal", value: "a.b" },
        { kind: "one" },
        { kind: "one" },
        { kind: "literal", value: "shelves" },
        { kind: "one" },
        { kind: "rest" },
      ],
      variables: [
        { field: ["x"], from: 3, to: 4, multi: false },
        { field: ["y", "z"], from: 4, to: 6, multi: true },
        { field: ["rest"], from: 6, to: undefined, multi: true },
      ],
      verb: "undo",
    });
    assert.deepEqual(parseTemplate("/a/{b=c/**}").variables, [{ field: ["b"], from: 1, to: undefined, multi: true }]);
    assert.deepEqual(parseTemplate("/a%20b/**:c%21"), {
      segments: [{ kind: "literal", value: "a b" }, { kind: "rest" }],
      variables: [],
      verb: "c!",
    });
  });

  const refused: readonly (readonly [template: string, problem: RegExp])[] = [
    ["", /without a slash/],
    ["v1", /without a slash/],
    ["/", /a segment is empty/],
    ["/v1/", /a segment is empty/],
    ["//v1", /a segment is empty/],
    ["/v1/**/a", /\*\* is only allowed at the end/],
    ["/v1/{a=**}/b", /\*\* is only allowed at the end/],
    ["/v1/***", /is no segment/],
    ["/v1/a*", /is no segment/],
    ["/v1/{a}/{a}", /a field occurs twice/],
    ["/v1/{a", /has no end/],
    ["/v1/a}", /ends inside/],
    ["/v1/x{a}", /begins inside/],
    ["/v1/{a}x", /ends inside/],
    ["/v1/{a={b}}", /begins inside/],
    ["/v1/{}", /is no field path/],
    ["/v1/{a.}", /is no field path/],
    ["/v1/{1a}", /is no field path/],
    ["/v1/{a=}", /a segment is empty/],
    ["/v1/{a=b//c}", /a segment is empty/],
    ["/v1/a:", /verb after the colon/],
    ["/v1/a:b/c", /verb after the colon/],
    ["/v1/a:*", /verb after the colon/],
    ["/v1/a b", /is no segment/],
    ["/v1/a?b", /is no segment/],
    ["/v1/a%2", /is no segment/],
    ["/v1/%ff", /is not UTF-8/],
  ];
  for (const [template, problem] of refused) {
    test(`is refused when it is ${JSON.stringify(template)}`, () => {
      assert.throws(() => parseTemplate(template), problem);
    });
  }

  test("is read back from what it was written from, and damage never makes it crash otherwise", () => {
    const literal = fc.stringMatching(/^[a-z0-9._~-]{1,6}$/);
    const segment: fc.Arbitrary<Segment> = fc.oneof(
      literal.map((value) => ({ kind: "literal" as const, value })),
      fc.constant({ kind: "one" as const }),
    );
    const template = fc.record({
      segments: fc.array(segment, { minLength: 1, maxLength: 6 }),
      verb: fc.option(literal),
    });
    fc.assert(
      fc.property(
        template,
        fc.nat(),
        fc.constantFrom("{", "}", "*", "/", ":", "%", "="),
        ({ segments, verb }, at, damage) => {
          const parts = segments.map((one, index) =>
            one.kind === "literal" ? one.value : index % 2 === 0 ? "*" : `{f${index}}`,
          );
          const text = `/${parts.join("/")}${verb === null ? "" : `:${verb}`}`;
          const parsed = parseTemplate(text);
          assert.deepEqual(parsed.segments, segments);
          assert.equal(parsed.verb, verb ?? "");
          const place = at % (text.length + 1);
          try {
            parseTemplate(text.slice(0, place) + damage + text.slice(place));
          } catch (error) {
            assert.match((error as Error).message, /^path template "/);
          }
        },
      ),
    );
  });
});
