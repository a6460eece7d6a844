import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { AppError } from "#platform/rpc/errors.ts";
import { GATEWAY_LIMITS } from "../limits.ts";
import { credentialOf } from "./credential.ts";

const read = (headers: Record<string, string>) =>
  credentialOf(new Headers(headers), GATEWAY_LIMITS.maxCredentialLength);

function refusal(headers: Record<string, string>): string {
  try {
    read(headers);
  } catch (error) {
    assert.ok(error instanceof AppError);
    assert.doesNotMatch(error.message, /s3cret/);
    return `${error.reason}: ${error.message}`;
  }
  throw new Error("it was taken");
}

describe("the credential of a request", () => {
  test("is a bearer token or an API key", () => {
    assert.equal(read({ authorization: "Bearer abc" }), "abc");
    assert.equal(read({ authorization: "bearer  abc " }), "abc");
    assert.equal(read({ "x-api-key": "abc" }), "abc");
    assert.equal(read({ authorization: "Bearer abc", "x-api-key": "abc" }), "abc");
  });

  test("that is missing or malformed is refused with what to do, and never quoted", () => {
    assert.match(refusal({}), /^CREDENTIAL_MISSING: .*Authorization: Bearer <api key>.*X-API-Key/);
    assert.match(refusal({ authorization: "" }), /^CREDENTIAL_INVALID: .*form "Bearer <api key>"/);
    for (const authorization of ["Basic s3cret", "s3cret", "Bearer", "Bearer a s3cret", "Bearer s3cret\u00e9"]) {
      assert.match(refusal({ authorization }), /^CREDENTIAL_INVALID: .*form "Bearer <api key>"/, authorization);
    }
    assert.match(refusal({ "x-api-key": "" }), /^CREDENTIAL_INVALID: .*X-API-Key/);
    assert.match(refusal({ "x-api-key": "s3cret, other" }), /^CREDENTIAL_INVALID: .*X-API-Key/);
    assert.match(refusal({ authorization: "Bearer s3cret", "x-api-key": "other" }), /different credentials/);
    assert.match(refusal({ authorization: `Bearer ${"s3cret".repeat(2_000)}` }), /^CREDENTIAL_INVALID/);
  });
});
