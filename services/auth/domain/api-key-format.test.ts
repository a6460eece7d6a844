import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { encode, newId } from "#platform/id.ts";
import { encodeSecret, formatApiKey, parseApiKey, shownPrefix } from "./api-key-format.ts";

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const keys = fc
  .tuple(bytes(16), bytes(32))
  .map(([id, secret]) => ({ keyId: `key_${encode(id)}`, secret: encodeSecret(secret) }));

describe("API key format", () => {
  test("every key is read back as it was written", () => {
    fc.assert(fc.property(keys, (parts) => assert.deepEqual(parseApiKey(formatApiKey(parts)), parts)));
  });

  test("every key has the documented form", () => {
    const form = /^am_live_[0-7][0-9a-hjkmnp-tv-z]{25}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}$/;
    fc.assert(fc.property(keys, (parts) => assert.match(formatApiKey(parts), form)));
  });

  test("a key with one character exchanged is no key", () => {
    const any = fc.string({ unit: "grapheme", minLength: 1, maxLength: 1 });
    fc.assert(
      fc.property(keys, fc.nat(84), any, (parts, at, character) => {
        const key = formatApiKey(parts);
        fc.pre(key[at] !== character);
        assert.equal(parseApiKey(key.slice(0, at) + character + key.slice(at + 1)), undefined);
      }),
    );
  });

  test("a key that is cut, or has something around it, is no key", () => {
    fc.assert(
      fc.property(keys, fc.nat(84), fc.string({ minLength: 1 }), (parts, at, more) => {
        const key = formatApiKey(parts);
        for (const other of [key.slice(0, at), key.slice(at + 1), key + more, more + key]) {
          assert.equal(parseApiKey(other), undefined);
        }
      }),
    );
  });

  test("no other text is taken for a key, however many underscores it has, and none makes the parser throw", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.stringMatching(/^am_live[_0-9a-z]*$/),
      fc.constant("_".repeat(9000)),
    );
    fc.assert(fc.property(text, (junk) => assert.equal(parseApiKey(junk), undefined)));
  });

  test("a right checksum does not make up for wrong parts", () => {
    const secret = encodeSecret(randomBytes(32));
    const id = newId("key").slice(4);
    const sign = (body: string) => {
      // The same checksum as the format's, computed apart from it.
      const digits = [..."0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"];
      let rest = crc32(body);
      let text = "";
      for (let i = 0; i < 6; i++, rest = Math.floor(rest / 62)) text = digits[rest % 62] + text;
      return `${body}_${text}`;
    };
    assert.notEqual(parseApiKey(sign(`am_live_${id}_${secret}`)), undefined);
    for (const body of [
      `am_test_${id}_${secret}`,
      `x_am_live_${id}_${secret}`,
      `am_live_${id.toUpperCase()}_${secret}`,
      `am_live_8${id.slice(1)}_${secret}`,
      `am_live_${id}_${secret.slice(1)}`,
      `am_live_${id}_${secret.slice(1)}-`,
      `am_live_${id}_${secret}_`,
      `am_live__${secret}`,
    ]) {
      assert.equal(parseApiKey(sign(body)), undefined, body);
    }
  });

  test("secrets keep all 256 bits: the extremes have 43 characters, and different bytes have different texts", () => {
    assert.equal(encodeSecret(new Uint8Array(32)), "0".repeat(43));
    assert.equal(encodeSecret(new Uint8Array(32).fill(255)).length, 43);
    fc.assert(
      fc.property(bytes(32), bytes(32), (a, b) => {
        assert.equal(encodeSecret(a) === encodeSecret(b), Buffer.compare(a, b) === 0);
      }),
    );
    assert.throws(() => encodeSecret(new Uint8Array(31)), RangeError);
  });

  test("what is shown of a key holds nothing of its secret", () => {
    const key = formatApiKey({ keyId: newId("key"), secret: encodeSecret(randomBytes(32)) });
    const shown = shownPrefix(`key_${key.slice(8, 34)}`);
    assert.equal(shown, key.slice(0, 24));
  });
});
