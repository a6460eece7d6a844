import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { rootSecret } from "#platform/secrets/root-secret.ts";
import { createKeyDigester } from "./key-digest.ts";
import { newApiKey } from "./new-api-key.ts";
import { createResponseEnvelope } from "./response-envelope.ts";

const [one, two] = [randomBytes(32), randomBytes(32)];

describe("key digests", () => {
  const digester = createKeyDigester(rootSecret([one]));
  const key = newApiKey();

  test("match the key that they were made of, and no other id or secret", () => {
    const stored = digester.digest(key);
    assert.equal(stored.digest.length, 32);
    assert.equal(digester.matches(key, stored), true);
    assert.equal(digester.matches({ ...key, secret: newApiKey().secret }, stored), false);
    assert.equal(digester.matches({ ...key, keyId: newApiKey().keyId }, stored), false);
    assert.equal(digester.matches(key, undefined), false);
    assert.equal(digester.matches(key, { ...stored, digest: new Uint8Array(32) }), false);
  });

  test("depend on the root secret: another one matches only when the old one is still configured", () => {
    const stored = digester.digest(key);
    assert.equal(createKeyDigester(rootSecret([two])).matches(key, stored), false);
    const rotated = createKeyDigester(rootSecret([two, one]));
    assert.equal(rotated.matches(key, stored), true);
    assert.equal(rotated.isCurrent(stored), false);
    assert.equal(rotated.isCurrent(rotated.digest(key)), true);
  });
});

describe("the response envelope", () => {
  const envelope = createResponseEnvelope(rootSecret([one]));
  const plain = randomBytes(200);

  test("opens what it sealed, and hides it", () => {
    const sealed = Buffer.from(envelope.seal(plain, "a"));
    assert.deepEqual(Buffer.from(envelope.open(sealed, "a")), plain);
    assert.equal(sealed.includes(plain.subarray(0, 16)), false);
    assert.notDeepEqual(sealed, envelope.seal(plain, "a"));
    assert.deepEqual(Buffer.from(envelope.open(envelope.seal(new Uint8Array(), ""), "")), Buffer.alloc(0));
  });

  test("does not open for another context, after any change, or cut", () => {
    const sealed = Buffer.from(envelope.seal(plain, "a"));
    assert.throws(() => envelope.open(sealed, "b"));
    for (let at = 0; at < sealed.length; at += 7) {
      const changed = Buffer.from(sealed);
      changed[at] = (changed[at] as number) ^ 1;
      assert.throws(() => envelope.open(changed, "a"), `byte ${at}`);
    }
    for (const length of [0, 3, 20, 35, sealed.length - 1])
      assert.throws(() => envelope.open(sealed.subarray(0, length), "a"));
  });

  test("opens with an earlier root secret as long as it is configured", () => {
    const sealed = envelope.seal(plain, "a");
    assert.deepEqual(Buffer.from(createResponseEnvelope(rootSecret([two, one])).open(sealed, "a")), plain);
    assert.throws(() => createResponseEnvelope(rootSecret([two])).open(sealed, "a"));
  });
});
