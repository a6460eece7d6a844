import { assertChat, outputOf, scriptChats, withMesh } from "./run-example.ts";
import { exampleTest, go } from "./toolchain.ts";

exampleTest("the Go example generates its client, streams a chat with a tool call, leaves and resumes", go, () =>
  withMesh(async (mesh) => {
    scriptChats(mesh);
    assertChat(await outputOf("go", mesh));
  }),
);
