import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { inspect } from "node:util";
import { loadRootSecret } from "./root-secret.ts";

const secret = () => randomBytes(32).toString("base64");

describe("root secret", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "secret-"));
  });
  after(() => rm(dir, { recursive: true }));

  test("the same secret and purpose give the same key, another purpose or secret another one", async () => {
    const one = secret();
    const a = await loadRootSecret({ secret: one });
    const again = await loadRootSecret({ secret: `${one}\n` });
    const b = await loadRootSecret({ secret: secret() });
    assert.deepEqual(a.derive("vault"), again.derive("vault"));
    assert.notDeepEqual(a.derive("vault").key, a.derive("page token").key);
    assert.notDeepEqual(a.derive("vault").key, b.derive("vault").key);
    assert.notDeepEqual(a.derive("vault").id, b.derive("vault").id);
    assert.equal(a.derive("vault").key.length, 32);
    assert.equal(a.derive("pepper", 64).key.length, 64);
  });

  test("after a rotation the previous secret's keys are still there to read with, under the same ids", async () => {
    const [old, current] = [secret(), secret()];
    const before = await loadRootSecret({ secret: old });
    const rotated = await loadRootSecret({ secret: current, previous: ` ${old}, ` });
    assert.deepEqual(
      rotated.deriveAll("vault").map(({ id }) => id),
      [rotated.derive("vault").id, before.derive("vault").id],
    );
    assert.deepEqual(rotated.deriveAll("vault")[1], before.derive("vault"));
    assert.notDeepEqual(rotated.derive("vault"), before.derive("vault"));
  });

  test("a missing, malformed, short, long or typed secret is refused with what to do, and never quoted", async () => {
    const typed = Buffer.from("aaaaaaaabbbbbbbbccccccccdddddddd").toString("base64");
    const cases: [{ secret?: string; previous?: string }, RegExp][] = [
      [{}, /AGENTMESH_SECRET is not set\. .*openssl rand -base64 32/],
      [{ secret: "" }, /is not set/],
      [{ secret: "not base64 at all!" }, /AGENTMESH_SECRET is malformed/],
      [{ secret: randomBytes(31).toString("base64") }, /malformed/],
      [{ secret: randomBytes(33).toString("base64") }, /malformed/],
      [{ secret: typed }, /not random/],
      [{ secret: secret(), previous: "nonsense" }, /AGENTMESH_SECRET_PREVIOUS is malformed/],
    ];
    for (const [source, message] of cases) {
      await assert.rejects(loadRootSecret(source), (error: Error) => {
        assert.match(error.message, message);
        for (const value of Object.values(source)) assert.ok(value === "" || !error.message.includes(value));
        return true;
      });
    }
  });

  test("without one it is made once in the data directory, mode 0600, and kept", async () => {
    const dataDir = join(dir, "made", "data");
    const first = await loadRootSecret({ dataDir });
    assert.equal((await stat(join(dataDir, "secret"))).mode & 0o777, 0o600);
    assert.deepEqual((await loadRootSecret({ dataDir })).derive("x"), first.derive("x"));
    assert.deepEqual(await readdir(dataDir), ["secret"], "no draft is left behind");
    assert.equal(Buffer.from(await readFile(join(dataDir, "secret"), "utf8"), "base64").length, 32);
  });

  test("processes that start together agree on one", async () => {
    const dataDir = join(dir, "together");
    const all = await Promise.all(Array.from({ length: 20 }, () => loadRootSecret({ dataDir })));
    assert.equal(new Set(all.map((root) => root.derive("x").key.toString("hex"))).size, 1);
    assert.deepEqual(await readdir(dataDir), ["secret"]);
  });

  test("a damaged file is an error that names it, and is not replaced", async () => {
    const dataDir = join(dir, "damaged");
    await loadRootSecret({ dataDir });
    await chmod(join(dataDir, "secret"), 0o600);
    await writeFile(join(dataDir, "secret"), "gone");
    await assert.rejects(loadRootSecret({ dataDir }), /damaged.secret is malformed/);
    assert.equal(await readFile(join(dataDir, "secret"), "utf8"), "gone");
  });

  test("printing it shows no key", async () => {
    const given = secret();
    const root = await loadRootSecret({ secret: given });
    const shown = `${inspect(root, { depth: 9, showHidden: true })}${JSON.stringify(root)}`;
    assert.ok(!shown.includes(given));
    assert.ok(!shown.includes("Buffer") && !shown.includes("Uint8Array"));
  });
});
