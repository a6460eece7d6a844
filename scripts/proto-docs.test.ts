import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { PROTO_DOCS, protoDocs } from "./proto-docs.ts";

describe("the documentation of the protos", () => {
  test("in gateway/openapi is what their comments say now", async () => {
    assert.equal(await readFile(PROTO_DOCS, "utf8"), protoDocs(), "run: node scripts/proto-docs.ts");
  });

  test("holds methods, messages, fields and enum values, paragraphs unwrapped", () => {
    const docs = JSON.parse(protoDocs()) as Record<string, string>;
    assert.equal(docs["agentmesh.agent.v1.RunService.GetRun"], "Reads a run.");
    assert.equal(docs["agentmesh.agent.v1.Session"], "A conversation.");
    assert.equal(
      docs["agentmesh.agent.v1.RunState.RUN_STATE_QUEUED"],
      "Waiting for a worker: nothing has happened yet, and there are no events.",
    );
    assert.match(docs["agentmesh.agent.v1.ChatService.Chat"] ?? "", /^Sends a message .*the caller leaves\.$/);
    assert.ok(docs["agentmesh.agent.v1.ChatRequest.message"]);
  });
});
