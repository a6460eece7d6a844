import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { PORT_LIMITS } from "#platform/rpc/port.ts";
import { GATEWAY_LIMITS } from "./limits.ts";

/** The rows of the README table with this heading in its first column. */
async function table(heading: string): Promise<Record<string, number>> {
  const readme = await readFile(new URL("README.md", import.meta.url), "utf8");
  const [, body = ""] = readme.split(`| ${heading} | Value |`);
  const rows = (body.split("\n\n")[0] ?? "").matchAll(/^\| `(\w+)` \| (\d+) \| \S.* \|$/gm);
  return Object.fromEntries([...rows].map(([, name, value]) => [name, Number(value)]));
}

describe("the limits", () => {
  test("of the gateway are those that README.md lists, and all of them", async () => {
    assert.deepEqual(await table("Limit"), { ...GATEWAY_LIMITS });
  });

  test("of the port are those that README.md lists, and all of them", async () => {
    assert.deepEqual(await table("Port limit"), { ...PORT_LIMITS });
  });
});
