import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { AgentConfigService } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.ts";
import { onward } from "./call.ts";
import { reasonOf } from "./errors.ts";
import { CARRIERS, openTestMesh, rejection, testCall } from "./test-mesh.contract.ts";

for (const carrier of CARRIERS) {
  describe(`validation over the ${carrier} carrier`, () => {
    const reached: string[] = [];
    const open = () =>
      openTestMesh(carrier, {
        all: {
          services: [ToolExecutionService, AgentConfigService, ChatService],
          routes(router) {
            router.service(ToolExecutionService, {
              describeTools() {
                reached.push("describeTools");
                return {};
              },
              async *executeTool() {
                reached.push("executeTool");
                yield { frame: { case: "result", value: { durationMs: 1n } } };
              },
            });
            router.service(AgentConfigService, {
              createAgent() {
                reached.push("createAgent");
                return {};
              },
            });
            router.service(ChatService, { chat: () => ({ response: "ok" }) });
          },
        },
      });

    async function violations(promise: PromiseLike<unknown>): Promise<string[]> {
      const error = await rejection(promise);
      assert.ok(error instanceof ConnectError, String(error));
      assert.equal(error.code, Code.InvalidArgument, error.message);
      assert.equal(reasonOf(error), "FIELD_INVALID");
      const [badRequest, ...more] = error.findDetails(BadRequestSchema);
      assert.ok(badRequest !== undefined && more.length === 0);
      for (const { field, description } of badRequest.fieldViolations) {
        assert.notEqual(description, "");
        assert.ok(error.rawMessage.includes(`${field}: ${description}`));
      }
      return badRequest.fieldViolations.map(({ field }) => field);
    }

    test("names every wrong field by its path in proto names, and the handler is not reached", async () => {
      await using mesh = await open();
      reached.length = 0;
      const links = mesh.links("edge");
      const call = onward(testCall(["agents:run", "agents:write"]));
      const names = ["ok", "x".repeat(65), "ok", "y".repeat(65)];
      assert.deepEqual(await violations(links.to(ToolExecutionService).describeTools({ names }, call)), [
        "names[1]",
        "names[3]",
      ]);
      const agent = { name: "x", maxTokens: -1, maxIterations: 1000, description: "x".repeat(100_000) };
      const fields = await violations(
        links.to(AgentConfigService).createAgent({ tenantId: "x".repeat(200), agent }, call),
      );
      assert.ok(fields.includes("agent.max_iterations"), fields.join());
      assert.ok(fields.includes("tenant_id"), fields.join());
      assert.deepEqual(reached, []);
    });

    test("checks the request of a server stream before its first message", async () => {
      await using mesh = await open();
      reached.length = 0;
      const client = mesh.links("edge").to(ToolExecutionService);
      const call = onward(testCall(["agents:run"]));
      const stream = client.executeTool({ tool: "", callId: "", argumentsJson: "{}" }, call);
      assert.deepEqual(await violations(stream[Symbol.asyncIterator]().next()), ["tool", "call_id"]);
      assert.deepEqual(reached, []);
      for await (const { frame } of client.executeTool({ tool: "t", callId: "c" }, call)) {
        assert.equal(frame.case, "result");
      }
      assert.deepEqual(reached, ["executeTool"]);
    });

    test("lists at most twenty violations", async () => {
      await using mesh = await open();
      const names = Array.from({ length: 100 }, () => "x".repeat(65));
      const call = onward(testCall(["agents:run"]));
      const fields = await violations(mesh.links("edge").to(ToolExecutionService).describeTools({ names }, call));
      assert.equal(fields.length, 20);
    });

    test("counts characters, not UTF-16 units, and lets a valid message through", async () => {
      await using mesh = await open();
      const client = mesh.links("edge").to(ChatService);
      const call = onward(testCall(["agents:run"]));
      assert.equal((await client.chat({ message: "𝒳".repeat(100_000) }, call)).response, "ok");
      assert.deepEqual(await violations(client.chat({ message: "𝒳".repeat(100_001) }, call)), ["message"]);
    });
  });
}
