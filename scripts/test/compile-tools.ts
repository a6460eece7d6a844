// Tools that an example compiles on first use, which takes longer than a test may: Go's build cache has them afterwards.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const script = join(import.meta.dirname, "../../examples/grpcurl/chat.sh");

/** Compiles what the tests in `files` would; where Go is missing nothing happens, and a failure is theirs to tell. */
export function compileTools(files: readonly string[]): void {
  if (!files.includes("tests/examples/grpcurl.test.ts")) return;
  if (spawnSync("grpcurl", ["-version"], { stdio: "ignore" }).status === 0) return;
  const [, tool = ""] = /go install (\S+)/.exec(readFileSync(script, "utf8")) ?? [];
  const bin = mkdtempSync(join(tmpdir(), "agentmesh-tools-"));
  const env = { ...process.env, CGO_ENABLED: "0", GOBIN: bin };
  spawnSync("go", ["install", tool], { stdio: "ignore", env, timeout: 300_000 });
  rmSync(bin, { recursive: true });
}
