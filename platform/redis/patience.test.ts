import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Patience } from "./patience.ts";

describe("patience", () => {
  test("ends after so many failures in a row, tries once per rest, and comes back with a success", () => {
    let now = 0;
    const patience = new Patience({ failures: 3, restMs: 100, now: () => now });
    patience.failed();
    patience.failed();
    patience.succeeded();
    patience.failed();
    patience.failed();
    assert.equal(patience.admit(), true);
    patience.failed();
    assert.equal(patience.admit(), false);
    now = 100;
    assert.equal(patience.admit(), true, "one attempt");
    assert.equal(patience.admit(), false, "and only one");
    patience.failed();
    now = 199;
    assert.equal(patience.admit(), false);
    now = 200;
    assert.equal(patience.admit(), true);
    patience.succeeded();
    assert.equal(patience.admit() && patience.admit(), true);
  });
});
