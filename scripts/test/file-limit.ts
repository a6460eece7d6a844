// Loaded into every process of the test runner (--import). node's --test-timeout ends a test, not a file whose event loop
// stays busy or alive after its tests: that would hang the whole run. This ends such a file and says what kept it.
import { Worker } from "node:worker_threads";

const limitMs = Number(process.env["AGENTMESH_TEST_FILE_LIMIT_MS"]);
const runsOneFile = process.env["NODE_TEST_CONTEXT"] !== undefined;

if (runsOneFile && limitMs > 0) {
  setTimeout(() => {
    console.error(
      `this file ran longer than ${limitMs} ms; still open: ${process.getActiveResourcesInfo().join(", ")}`,
    );
    process.exit(1);
  }, limitMs).unref();

  // A thread of its own also ends a file that never yields.
  const source = `setTimeout(() => process.kill(process.pid, "SIGKILL"), ${limitMs + 1_000})`;
  new Worker(source, { eval: true, stdout: true, stderr: true }).unref();
}
