import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { maskOutput, maskTexts } from "./mask-output.ts";

const mask = (text: string) => text.replaceAll("secret", "***").replaceAll("4711", "****");

describe("a tool's mask", () => {
  test("goes over every text of a value: names, lists, depth and numbers", () => {
    const value = { secret: ["a secret", { n: 14711, m: 5, none: null, yes: true }], big: 4711n };
    assert.deepEqual(maskTexts(value, mask), {
      "***": ["a ***", { n: "1****", m: 5, none: null, yes: true }],
      big: "****",
    });
    const named = JSON.parse('{"__proto__":"secret"}');
    assert.equal(JSON.stringify(maskTexts(named, mask)), '{"__proto__":"***"}');
    let deep: unknown = "secret";
    for (let i = 0; i < 10_000; i++) deep = [deep];
    assert.match(JSON.stringify(maskTexts(deep, mask)), /\[too deep\]/);
  });

  test("goes over every kind of output, images apart", () => {
    const image = { type: "image", mediaType: "image/png", data: new Uint8Array(2) } as const;
    assert.equal(maskOutput("a secret", mask), "a ***");
    assert.deepEqual(maskOutput({ structured: { a: "secret" }, text: "secret" }, mask), {
      structured: { a: "***" },
      text: "***",
    });
    const escalation = { reason: "secret", priority: "low" } as const;
    assert.deepEqual(maskOutput({ content: [{ type: "text", text: "secret" }, image], escalation }, mask), {
      content: [{ type: "text", text: "***" }, image],
      escalation: { reason: "***", priority: "low" },
    });
    assert.deepEqual(maskOutput({ content: [], structured: "secret" }, mask), { content: [], structured: "***" });
  });
});
