import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { format, inspect } from "node:util";
import { REDACTED, Secret } from "./secret.ts";

describe("Secret", () => {
  const secret = new Secret("hunter2");

  test("gives its value through reveal only", () => {
    assert.equal(secret.reveal(), "hunter2");
    assert.deepEqual(Object.keys(secret), []);
    assert.deepEqual(structuredClone(secret), {});
  });

  test("shows [redacted] in every printed form", () => {
    const forms = {
      json: JSON.stringify({ secret }),
      inspected: inspect({ deep: { secret } }, { depth: null, showHidden: true }),
      text: String(secret),
      template: `${secret}`,
      joined: [secret, secret].join(),
      sum: `a${secret as unknown as string}`,
      formatted: format("%s %o %j", secret, secret, secret),
    };
    for (const [name, form] of Object.entries(forms)) {
      assert.ok(!form.includes("hunter2"), name);
      assert.ok(form.includes(REDACTED), name);
    }
  });
});
