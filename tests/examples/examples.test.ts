import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type MeshUnderTest, startMesh } from "#tests/e2e/mesh-under-test.ts";
import { documentedCommands } from "./documented-command.ts";
import { assertChat, assertWire, outputOf, scriptChats } from "./run-example.ts";
import { bashAndCurl, exampleTest, python } from "./toolchain.ts";

test("every example stands in the table", () => {
  const folders = readdirSync(join(import.meta.dirname, "../../examples"), { withFileTypes: true });
  assert.deepEqual(
    [...documentedCommands().keys()].toSorted(),
    folders.filter((entry) => entry.isDirectory()).map(({ name }) => name),
  );
});

describe("an example streams a chat with a tool call, leaves and resumes:", { timeout: 170_000 }, () => {
  let mesh: MeshUnderTest;
  before(async () => {
    mesh = await startMesh("embedded");
  });
  after(() => mesh.stop());

  for (const folder of ["node-connect", "node-grpc-js"]) {
    exampleTest(folder, undefined, async () => {
      scriptChats(mesh);
      assertChat(await outputOf(folder, mesh));
    });
  }

  exampleTest("python", python, async () => {
    scriptChats(mesh);
    assertChat(await outputOf("python", mesh));
  });

  exampleTest("curl", bashAndCurl, async () => {
    scriptChats(mesh, 2);
    const output = await outputOf("curl", mesh);
    assertWire(output);
    assert.match(output, /^-- one answer\n\{"response":"Twelve times/m);
    assert.match(output, /^id: \d+\nevent: tool_call\ndata: \{"type":"tool_call"/m);
  });

  exampleTest("buf-curl", bashAndCurl, async () => {
    scriptChats(mesh);
    const output = await outputOf("buf-curl", mesh);
    assertWire(output);
    assert.match(output, /^-- services\n(.*\n)*agentmesh\.agent\.v1\.ChatService\n/);
  });
});
