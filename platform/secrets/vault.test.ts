import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import fc from "fast-check";
import { rootSecret } from "./root-secret.ts";
import { createVault, type SecretOwner, VaultError } from "./vault.ts";

const [old, next] = [randomBytes(32), randomBytes(32)];
const vault = createVault(rootSecret([old]), "test");
const owner: SecretOwner = ["ten_1", "anthropic"];

describe("the vault", () => {
  test("opens what it sealed, whatever text that is, for the same owner", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), fc.array(fc.string()), (secret, more) => {
        const of: SecretOwner = ["ten_1", ...more];
        assert.equal(vault.open(vault.seal(secret, of), of), secret);
      }),
    );
  });

  test("shows nothing of a secret, and seals the same one differently each time", () => {
    const secret = "sk-ant-0123456789abcdef";
    const [a, b] = [vault.seal(secret, owner), vault.seal(secret, owner)];
    assert.notDeepEqual(a, b);
    assert.ok(!Buffer.from(a).includes("sk-ant") && !Buffer.from(a).includes("ten_1"));
    assert.equal(a.length, 37 + secret.length);
  });

  test("opens nothing for another owner, purpose or root secret", () => {
    const sealed = vault.seal("secret", owner);
    const others: SecretOwner[] = [
      ["ten_2", "anthropic"],
      ["ten_1", "openai"],
      ["ten_1"],
      ["ten_1", "anthropic", ""],
      ['ten_1","anthropic'],
      ["anthropic", "ten_1"],
    ];
    for (const other of others) assert.throws(() => vault.open(sealed, other), VaultError, other.join());
    assert.throws(() => createVault(rootSecret([old]), "other").open(sealed, owner), VaultError);
    assert.throws(() => createVault(rootSecret([next]), "test").open(sealed, owner), /not configured/);
  });

  test("refuses a sealed secret with any bit changed, cut or lengthened, and never quotes it", () => {
    const sealed = Buffer.from(vault.seal("secret", owner));
    const refused = (bytes: Uint8Array) =>
      assert.throws(
        () => vault.open(bytes, owner),
        (error: Error) => {
          assert.ok(error instanceof VaultError && error.cause === undefined);
          assert.ok(!inspect(error).includes('secret"'));
          return true;
        },
      );
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = Buffer.from(sealed);
      changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      refused(changed);
    }
    for (let length = 0; length < sealed.length; length++) refused(sealed.subarray(0, length));
    refused(Buffer.concat([sealed, Buffer.of(0)]));
    refused(randomBytes(100));
  });

  test("after a rotation opens what the previous root secret sealed, says that it did, and seals under the new one", () => {
    const rotated = createVault(rootSecret([next, old]), "test");
    const before = vault.seal("secret", owner);
    assert.equal(rotated.open(before, owner), "secret");
    assert.deepEqual([vault.isCurrent(before), rotated.isCurrent(before)], [true, false]);
    const after = rotated.seal(rotated.open(before, owner), owner);
    assert.equal(rotated.isCurrent(after), true);
    assert.equal(createVault(rootSecret([next]), "test").open(after, owner), "secret");
    assert.throws(() => vault.open(after, owner), VaultError);
  });

  test("a digest tells equal bytes from others, and cannot be made without the root secret", () => {
    const digest = (bytes: string, of = vault) => Buffer.from(of.digest(Buffer.from(bytes))).toString("hex");
    assert.equal(digest("a"), digest("a"));
    assert.notEqual(digest("a"), digest("b"));
    assert.notEqual(digest("a"), digest("a", createVault(rootSecret([next]), "test")));
    assert.notEqual(digest("a"), digest("a", createVault(rootSecret([old]), "other")));
  });

  test("printing it shows no key", () => {
    const shown = `${inspect(vault, { depth: 9, showHidden: true })}${JSON.stringify(vault)}`;
    assert.ok(!shown.includes("Buffer") && !shown.includes("Uint8Array"));
  });
});
