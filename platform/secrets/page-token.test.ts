import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { newId } from "#platform/id.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { type Cursor, createPageTokens } from "./page-token.ts";
import { rootSecret } from "./root-secret.ts";

const secret = randomBytes(32);
const tokens = createPageTokens(rootSecret([secret]));
const tenant = newId("ten");
const page = { tenant, filter: { method: "ListSessions", state: "active" } };

function refused(open: () => unknown): void {
  assert.throws(open, (error) => {
    assert.ok(error instanceof AppError);
    assert.equal(error.code, Code.InvalidArgument);
    assert.equal(error.reason, "PAGE_TOKEN_INVALID");
    assert.equal(error.violations[0]?.field, "page_token");
    return true;
  });
}

describe("page tokens", () => {
  test("a token gives back its cursor, whatever JSON that is", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (cursor, filter) => {
        const token = tokens.seal({ tenant, filter: filter as Cursor, cursor: cursor as Cursor });
        assert.match(token, /^[\w-]+$/);
        assert.equal(JSON.stringify(tokens.open(token, { tenant, filter: filter as Cursor })), JSON.stringify(cursor));
      }),
    );
  });

  test("a token shows nothing of its cursor, and two of the same cursor differ", () => {
    const cursor = ["2026-11-22T10:00:00.123456Z", newId("ses")];
    const [a, b] = [tokens.seal({ ...page, cursor }), tokens.seal({ ...page, cursor })];
    assert.notEqual(a, b);
    for (const part of cursor) assert.ok(!Buffer.from(a, "base64url").includes(part));
  });

  test("the order of a filter's fields and fields that are undefined do not matter", () => {
    const token = tokens.seal({ tenant, filter: { a: 1, b: { c: [2], d: "x" } }, cursor: 7 });
    const same = { b: { d: "x", c: [2] }, a: 1, e: undefined };
    assert.equal(tokens.open(token, { tenant, filter: same }), 7);
  });

  test("another tenant's token, and one of another filter, are refused", () => {
    const token = tokens.seal({ ...page, cursor: "c" });
    refused(() => tokens.open(token, { ...page, tenant: newId("ten") }));
    refused(() => tokens.open(token, { ...page, filter: { ...page.filter, state: "closed" } }));
    refused(() => tokens.open(token, { ...page, filter: {} }));
  });

  test("tenant and filter cannot trade characters", () => {
    const token = tokens.seal({ tenant: "a", filter: ["b", "c"], cursor: 1 });
    refused(() => tokens.open(token, { tenant: 'a","b', filter: ["c"] }));
    refused(() => tokens.open(token, { tenant: "a", filter: ["b,c"] }));
  });

  test("a token with any bit changed, cut or lengthened is refused", () => {
    const token = tokens.seal({ ...page, cursor: ["x", 1] });
    const bytes = Buffer.from(token, "base64url");
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes);
      changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      refused(() => tokens.open(changed.toString("base64url"), page));
    }
    for (let length = 0; length < bytes.length; length++) {
      refused(() => tokens.open(bytes.subarray(0, length).toString("base64url"), page));
    }
    refused(() => tokens.open(`${token}AAAA`, page));
  });

  test("what is no token at all is refused", () => {
    for (const text of [
      "",
      " ",
      "0",
      "eyJhIjoxfQ==",
      "not a token",
      "\u0000",
      "é".repeat(50),
      "A".repeat(100),
      "A".repeat(1e6),
    ]) {
      refused(() => tokens.open(text, page));
    }
  });

  test("a token ends after 24 hours", () => {
    let time = Date.parse("2026-11-22T00:00:00Z");
    const clocked = createPageTokens(rootSecret([secret]), () => time);
    const token = clocked.seal({ ...page, cursor: 1 });
    time += 24 * 3_600_000;
    assert.equal(clocked.open(token, page), 1);
    time += 1;
    refused(() => clocked.open(token, page));
  });

  test("after a rotation old tokens open and new ones are of the new secret", () => {
    const next = randomBytes(32);
    const rotated = createPageTokens(rootSecret([next, secret]));
    assert.equal(rotated.open(tokens.seal({ ...page, cursor: "old" }), page), "old");
    const fresh = rotated.seal({ ...page, cursor: "new" });
    assert.equal(createPageTokens(rootSecret([next])).open(fresh, page), "new");
    refused(() => tokens.open(fresh, page));
  });
});
