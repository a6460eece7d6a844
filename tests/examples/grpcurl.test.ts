import assert from "node:assert/strict";
import { assertWire, outputOf, scriptChats, withMesh } from "./run-example.ts";
import { exampleTest, grpcurl } from "./toolchain.ts";

exampleTest("grpcurl lists the services, streams a chat with a tool call, leaves and resumes", grpcurl, () =>
  withMesh(async (mesh) => {
    scriptChats(mesh);
    const output = await outputOf("grpcurl", mesh);
    assertWire(output);
    assert.match(output, /^-- services\n(.*\n)*agentmesh\.agent\.v1\.ChatService\n/m);
  }),
);
