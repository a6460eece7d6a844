import assert from "node:assert/strict";
import { test } from "node:test";
import { isId } from "../id.ts";
import { requestIdOf } from "./request-id.ts";

test("a caller's request id is kept when it is harmless, else replaced", () => {
  for (const given of ["a", "req_1", "A-b.C_9", "x".repeat(128)]) {
    assert.equal(requestIdOf(new Headers({ "x-request-id": given })), given);
  }
  for (const given of ["", "a b", "a\tb", "x".repeat(129), "é", "a/b", 'a"b', "<script>", "a,b"]) {
    assert.ok(isId("req", requestIdOf(new Headers({ "x-request-id": given }))), given);
  }
  const none = new Headers();
  assert.notEqual(requestIdOf(none), requestIdOf(none));
});
