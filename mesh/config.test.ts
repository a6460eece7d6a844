import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { ConfigError } from "#platform/config/config-error.ts";
import { loadConfig } from "#platform/config/load.ts";
import { advertisedAddress, readMeshConfig } from "./config.ts";
import { configurationReference } from "./configuration-reference.ts";
import { MODULES } from "./modules.ts";

const SECRET = Buffer.alloc(32, 7).toString("base64");
const load = (env: Record<string, string>) =>
  loadConfig((source) => readMeshConfig(source, MODULES), { env, dir: false });

function problems(env: Record<string, string>): Map<string, string> {
  try {
    load(env);
  } catch (error) {
    if (error instanceof ConfigError) return new Map(error.problems.map(({ key, problem }) => [key, problem]));
    throw error;
  }
  assert.fail("the configuration was accepted");
}

describe("the configuration of a process", () => {
  test("without any settings is the whole mesh with embedded backends on loopback", () => {
    const config = load({});
    assert.deepEqual(new Set(config.modules), new Set(Object.keys(MODULES)));
    assert.equal(config.embedded, true);
    assert.deepEqual(config.listen, { host: "127.0.0.1", port: 8080 });
  });

  test("of a part names every backend, secret and address that is missing", () => {
    const missing = problems({ MESH_TARGET: "gateway" });
    for (const key of ["postgres.url", "redis.url", "nats.url", "mesh.secret"]) assert.ok(missing.has(key), key);
    for (const key of ["links.auth", "links.config", "links.tool", "links.agent"]) assert.ok(missing.has(key), key);
    assert.deepEqual(
      [...problems({ MESH_TARGET: "tool" }).keys()].filter((key) => key.startsWith("links.")),
      [],
    );
  });

  test("of a part is complete with them", () => {
    const config = load({
      MESH_TARGET: "agent",
      DATABASE_URL: "postgresql://u:p@db/agentmesh",
      REDIS_URL: "redis://cache",
      NATS_URL: "nats://bus",
      AGENTMESH_SECRET: SECRET,
      AGENTMESH_CONFIG_URL: "http://config:8080",
      AGENTMESH_TOOL_URL: "http://tool:8080",
    });
    assert.deepEqual(config.modules, ["agent"]);
    assert.equal(config.links.get("tool"), "http://tool:8080");
    assert.doesNotMatch(JSON.stringify(config), /u:p@|BwcHBwc/, "what is secret does not show");
  });

  test("takes several addresses of a module, and says which of them is none", () => {
    const several = "http://agent-1:8080, dns+http://agent:8080";
    assert.equal(load({ AGENTMESH_AGENT_URL: several }).links.get("agent"), several);
    const wrong = problems({ AGENTMESH_AGENT_URL: "http://agent-1:8080,agent-2" }).get("links.agent") ?? "";
    assert.match(wrong, /^entry 2 is not a base URL/);
  });

  test("refuses unknown modules, keys and variables by name", () => {
    assert.match(problems({ MESH_TARGET: "agnt" }).get("mesh.target") ?? "", /agnt.*agent/);
    assert.throws(() => load({ AGENTMESH_SERVER__PROT: "1" }), /AGENTMESH_SERVER__PORT/);
  });

  test("takes host and port from AGENTMESH_LISTEN and the port from PORT", () => {
    const cases: [Record<string, string>, { host: string; port: number }][] = [
      [{ PORT: "9000" }, { host: "127.0.0.1", port: 9000 }],
      [
        { AGENTMESH_LISTEN: "0.0.0.0", PORT: "9000" },
        { host: "0.0.0.0", port: 9000 },
      ],
      [
        { AGENTMESH_LISTEN: "0.0.0.0:7000", PORT: "9000" },
        { host: "0.0.0.0", port: 7000 },
      ],
      [{ AGENTMESH_LISTEN: "[::1]:7000" }, { host: "::1", port: 7000 }],
      [{ AGENTMESH_LISTEN: "localhost" }, { host: "localhost", port: 8080 }],
    ];
    for (const [env, expected] of cases) assert.deepEqual(load(env).listen, expected, JSON.stringify(env));
  });

  test("advertises what others can reach", () => {
    assert.equal(advertisedAddress(load({ AGENTMESH_LISTEN: "10.0.0.7" }), 8080), "http://10.0.0.7:8080");
    assert.equal(advertisedAddress(load({ AGENTMESH_LISTEN: "[::1]" }), 8080), "http://[::1]:8080");
    assert.doesNotMatch(advertisedAddress(load({ AGENTMESH_LISTEN: "0.0.0.0" }), 8080), /0\.0\.0\.0/);
    const env = { AGENTMESH_ADVERTISE: "http://agent-3:9000" };
    assert.equal(advertisedAddress(load(env), 8080), "http://agent-3:9000");
  });

  test("docs/configuration.md says what the code reads", () => {
    const page = readFileSync(join(import.meta.dirname, "../docs/configuration.md"), "utf8");
    assert.equal(page, configurationReference(MODULES), "run npm run configuration");
  });
});
