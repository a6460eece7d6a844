import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { exampleTest, go } from "#tests/examples/toolchain.ts";

const run = promisify(execFile);
const HERE = import.meta.dirname;
const BUF = join(HERE, "../../node_modules/.bin/buf");

/** Apache-2.0, by the Connect authors. Its protos are read from Go's module cache; nothing of it is kept here. */
const SUITE = "connectrpc.com/conformance";
const VERSION = "v1.0.7";

/** Fewer would mean that features.yaml leaves out what it should not. */
const FEWEST_CASES = 950;

/**
 * Cases that fail and are meant to, by the suite's own patterns; one that passes fails the run. A path that no method
 * has belongs to the REST face, which answers 404 with an AIP-193 body: the suite wants none, or Connect's.
 */
const KNOWN_FAILING = [
  "Connect Unexpected Requests/**/unexpected-uri",
  "gRPC Unexpected Requests/**/unexpected-uri",
  "gRPC-Web Unexpected Requests/**/unexpected-uri",
];

exampleTest("Connect's own conformance suite, against the port and the gateway's pipeline", go, async () => {
  const folder = await mkdtemp(join(tmpdir(), "conformance-"));
  try {
    const schema = await prepare(folder);
    const flags = ["--mode", "server", "--conf", join(HERE, "features.yaml"), "--max-servers", "2"];
    const known = KNOWN_FAILING.flatMap((pattern) => ["--known-failing", pattern]);
    const server = [process.execPath, join(HERE, "server-process.ts"), schema];
    const suite = await run(join(folder, "connectconformance"), [...flags, ...known, "--", ...server]).catch(
      (error: { stdout: string; stderr: string }) => error,
    );
    const said = `${suite.stdout}\n${suite.stderr}`;
    const total = Number(/^Total cases: (\d+)$/m.exec(said)?.[1]);
    assert.ok(!(suite instanceof Error), said.slice(0, 4_000));
    assert.ok(total >= FEWEST_CASES, said.slice(-1_000));
    process.stdout.write(`connect conformance ${VERSION}: ${said.trim().split("\n").slice(-3).join(", ")}\n`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

/** Builds the suite's runner and a descriptor set of its protos; returns the file of the latter. */
async function prepare(folder: string): Promise<string> {
  const env = { ...process.env, CGO_ENABLED: "0", GOBIN: folder, GOFLAGS: "" };
  await run("go", ["install", `${SUITE}/cmd/connectconformance@${VERSION}`], { env });
  const { stdout } = await run("go", ["mod", "download", "-json", `${SUITE}@${VERSION}`], { env, cwd: folder });
  const { Dir: module } = JSON.parse(stdout) as { Dir: string };
  const schema = join(folder, "schema.binpb");
  await run(BUF, ["build", join(module, "proto"), "-o", schema], { cwd: folder });
  return schema;
}
