import assert from "node:assert/strict";
import { join } from "node:path";
import { type Exit, spawnTied } from "#platform/process/tied-child.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { type MeshUnderTest, startMesh } from "#tests/e2e/mesh-under-test.ts";
import { documentedCommand } from "./documented-command.ts";

const ROOT = join(import.meta.dirname, "../..");

export const ANSWER = "Twelve times thirty-four is four hundred and eight.";
const OPENING = "Let me work that out.";
const CALL = '{"expression":"12 * 34"}';

/** Gives the model's next chats: a text and a tool call, then an answer slow enough to be seen in pieces. */
export function scriptChats(mesh: MeshUnderTest, chats = 1): void {
  for (let i = 0; i < chats; i++) {
    mesh.model.script(
      turnOf({ type: "text", text: OPENING }, toolUse("calculator", JSON.parse(CALL))),
      says(ANSWER, { paceMs: 20 }),
    );
  }
}

/** Runs a test's body with a mesh in one process. */
export async function withMesh(body: (mesh: MeshUnderTest) => Promise<void>): Promise<void> {
  const mesh = await startMesh("embedded");
  try {
    await body(mesh);
  } finally {
    await mesh.stop();
  }
}

/** A running example; disposing of it ends it, and what it started. */
export interface RunningExample extends AsyncDisposable {
  readonly exited: Promise<Exit>;
}

/** Starts an example as its reader would: by its documented command, in a shell, at the top of the project. */
export function startExample(
  folder: string,
  { baseUrl, adminKey }: MeshUnderTest,
  onLine: (line: string) => void,
  settings: Record<string, string> = {},
): RunningExample {
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  const shell = spawnTied("bash", ["-c", documentedCommand(folder)], {
    cwd: ROOT,
    env: {
      ...environment,
      AGENTMESH_URL: baseUrl,
      AGENTMESH_KEY: adminKey,
      NODE_DISABLE_COMPILE_CACHE: "1", // npx would leave one in the temporary folder
      ...settings,
    },
    onLine,
  });
  return {
    exited: shell.exited,
    async [Symbol.asyncDispose]() {
      // npx and shells do not hand signals on; the process group gets them all.
      if (shell.exit === undefined && shell.pid !== undefined) process.kill(-shell.pid, "SIGTERM");
      await shell.stop();
    },
  };
}

/** What an example prints, once it has ended well. */
export async function outputOf(folder: string, mesh: MeshUnderTest): Promise<string> {
  const lines: string[] = [];
  await using example = startExample(folder, mesh, (line) => void lines.push(line));
  const { code } = await example.exited;
  const output = lines.join("\n");
  assert.equal(code, 0, output);
  return output;
}

/** Checks what examples with a client of their own print: the tool call, the cut, and the rest exactly once. */
export function assertChat(output: string): void {
  const [, result, left, ended] =
    /^Let me work that out\.\n\[calculator {"expression":"12 \* 34"}\]\n\[result (.*)\]\n-- left run_\w{26} after event (\d+); resuming\nTwelve times thirty-four is four hundred and eight\.\n\[run_completed, event (\d+)\]\n?$/m.exec(
      output,
    ) ?? [];
  assert.ok(result !== undefined, output);
  assert.match(result, /408/);
  assert.ok(Number(ended) > Number(left), `${ended} comes after ${left}`);
}

/** Checks what tools print that show the wire's JSON: before the cut the tool call, after it later events to the end. */
export function assertWire(output: string): void {
  const [before = "", after = ""] = output.split(/^-- left .*$/m);
  const left = Number(/^-- left .*after event (\d+); resuming/m.exec(output)?.[1]);
  assert.ok(left > 0, output);
  assert.ok(before.includes(OPENING.split(" ")[0] ?? ""), before);
  assert.match(before, /"calculator"/);
  assert.match(before, /12 \* 34/);
  assert.match(before, /408/);
  const seqs = [...after.matchAll(/"seq": ?"(\d+)"/g)].map(([, seq]) => Number(seq));
  assert.ok(seqs.length > 2, after);
  assert.ok(
    seqs.every((seq) => seq >= left),
    `every event comes after ${left}: ${seqs}`,
  );
  assert.ok(!after.includes(OPENING), "what was seen does not come again");
  assert.ok(after.includes(ANSWER), after);
  assert.match(after, /"type": ?"run_completed"/);
}
