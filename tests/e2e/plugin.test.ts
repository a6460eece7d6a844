import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { type MeshUnderTest, startMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

const GREETER = fileURLToPath(new URL("../../platform/plugin/testing/greeter-plugin.ts", import.meta.url));

describe("what is added to an agent by its name", () => {
  let mesh: MeshUnderTest;
  let rest: RestClient;
  before(async () => {
    mesh = await startMesh("embedded", { AGENTMESH_PLUGINS__MODULES: GREETER });
    rest = new RestClient(mesh.baseUrl, mesh.adminKey);
    const enabled_tools = ["greet", "check_balance", "transfer_funds"];
    assert.equal((await rest.call("PATCH", "/api/v1/tenants/me", { enabled_tools })).status, 200);
  });
  after(() => mesh.stop());
  beforeEach(() => mesh.model.reset());

  async function agent(values: object): Promise<string> {
    const { status, body } = await rest.call("POST", "/api/v1/tenants/me/agents", values);
    assert.equal(status, 200, JSON.stringify(body));
    return body.agent_id;
  }

  async function streamed(agent_id: string): Promise<{ text: string; all: string; final: { response: string } }> {
    const data = [];
    for await (const event of rest.stream("POST", "/api/v1/chat/stream", { message: "go", agent_id })) {
      data.push(JSON.parse(event.data));
    }
    const text = data.flatMap(({ type, content }) => (type === "text" ? [content] : [])).join("");
    return { text, all: JSON.stringify(data), final: data.at(-1) };
  }

  test("a plugin of the configuration: its tool in the tool service, its prompt in the agent service", async () => {
    const agentId = await agent({ name: "Greeter", plugins: ["greeter"], tools: ["greet"] });
    mesh.model.script(turnOf(toolUse("greet", { name: "Ada" })), says("She was greeted."));
    const { all, final } = await streamed(agentId);
    assert.match(all, /Hello, Ada!/);
    assert.equal(final.response, "She was greeted.");
    assert.match(JSON.stringify(mesh.model.requests[0]?.body.system), /You can greet people\./);
  });

  test("the finance adapter: a real tool's account numbers are masked, and so is what the model makes up", async () => {
    const agentId = await agent({ name: "Bank", adapter: "finance", tools: ["check_balance"] });
    mesh.model.script(
      turnOf(toolUse("check_balance", {})),
      says("Your account 6222 0212 3456 7890 holds 4 321.75 euros.", { deltas: 50 }),
    );
    const { all, text, final } = await streamed(agentId);
    assert.doesNotMatch(all, /6222/);
    assert.equal(text, "Your account **** 7890 holds 4 321.75 euros.");
    assert.equal(final.response, text);
  });
});
