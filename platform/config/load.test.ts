import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Secret } from "../telemetry/secret.ts";
import { ConfigError } from "./config-error.ts";
import type { LoadOptions, ReadConfig } from "./load.ts";
import { configTable, describeConfig, loadConfig } from "./load.ts";

function folder(files: Readonly<Record<string, string>>): Disposable & { dir: string } {
  const dir = mkdtempSync(join(tmpdir(), "config-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  return { dir, [Symbol.dispose]: () => rmSync(dir, { recursive: true }) };
}

function refusal(read: ReadConfig<unknown>, options: LoadOptions): ConfigError {
  try {
    loadConfig(read, { env: {}, dir: false, ...options });
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: "it was accepted" });
}

const problemsOf = (read: ReadConfig<unknown>, options: LoadOptions) =>
  refusal(read, options).problems.map(({ key, problem }) => `${key}: ${problem}`);

const given = <T>(read: ReadConfig<T>, values: object, env: Record<string, string> = {}) =>
  loadConfig(read, { env, dir: false, values });

describe("the layers", () => {
  const read: ReadConfig<string[]> = (source) => {
    const section = source.section("a");
    return ["one", "two", "three", "four", "five"].map((key) => section.string(key, { default: "built in" }));
  };

  test("go from default.yaml over the environment's file and the named file to the environment", () => {
    using files = folder({
      "default.yaml": "a: { one: default, two: default, three: default, four: default }",
      "staging.yaml": "a: { two: staging, three: staging, four: staging }",
      "own.yaml": "a:\n  three: own\n  four: own\n",
    });
    const env = {
      AGENTMESH_ENV: "staging",
      AGENTMESH_CONFIG: join(files.dir, "own.yaml"),
      AGENTMESH_A__FOUR: "variable",
      AGENTMESH_A__ONE: "",
    };
    const values = loadConfig(read, { dir: files.dir, env });
    assert.deepEqual(values, ["default", "staging", "own", "variable", "built in"]);
  });

  test("need neither file nor environment, and take development's file when none is named", () => {
    using files = folder({ "development.yaml": "a: { one: development }" });
    assert.equal(loadConfig(read, { dir: files.dir, env: {} })[0], "development");
    assert.deepEqual(loadConfig(read, { dir: false, env: {} }), Array(5).fill("built in"));
  });

  test("are not erased by a section or key without a value", () => {
    using files = folder({
      "default.yaml": "a: { one: x }",
      "development.yaml": "a:\n",
      "own.yaml": "a: { one: ~ }\n# end",
    });
    const env = { AGENTMESH_CONFIG: join(files.dir, "own.yaml") };
    assert.equal(loadConfig(read, { dir: files.dir, env })[0], "x");
  });

  test("that are named and missing, unreadable or no YAML are refused by name", () => {
    using files = folder({ "default.yaml": "a: [1, 2", "list.yaml": "- 1", "twice.yaml": "a: {}\na: {}" });
    const of = (env: Record<string, string>, dir: string | false = false) => problemsOf(read, { env, dir }).join("\n");
    assert.match(of({}, files.dir), /default\.yaml: expected YAML: [A-Z_]+/);
    assert.match(
      of({ AGENTMESH_ENV: "nowhere" }, files.dir),
      /AGENTMESH_ENV: expected a readable YAML file \(ENOENT\)/,
    );
    assert.match(of({ AGENTMESH_ENV: "../x" }, files.dir), /AGENTMESH_ENV: expected a name/);
    assert.match(of({ AGENTMESH_CONFIG: files.dir }), /AGENTMESH_CONFIG: expected a readable YAML file \(EISDIR\)/);
    assert.match(of({ AGENTMESH_CONFIG: join(files.dir, "list.yaml") }), /expected a map of keys/);
    assert.match(of({ AGENTMESH_CONFIG: join(files.dir, "twice.yaml") }), /DUPLICATE_KEY/);
  });
});

describe("environment variables", () => {
  test("keep their customary names, and the override of the key goes first", () => {
    const read: ReadConfig<unknown[]> = (source) => [
      source.secret("postgres.url", { protocols: ["postgres:"] }).reveal(),
      source.int("server.port", { default: 8080, min: 0, max: 65535 }),
      source.url("links.agent", { optional: true }),
      source.string("own.key", { env: "SOMETHING_ELSE", default: "" }),
    ];
    const env = { DATABASE_URL: "postgres://u:p@h/d", PORT: "1", AGENTMESH_AGENT_URL: "http://a", SOMETHING_ELSE: "x" };
    assert.deepEqual(given(read, {}, env), ["postgres://u:p@h/d", 1, "http://a", "x"]);
    assert.equal(given(read, {}, { ...env, AGENTMESH_SERVER__PORT: "2" })[1], 2);
  });

  test("of ours that nobody reads are refused with the nearest known name; injected and foreign ones are not", () => {
    const read: ReadConfig<unknown> = (source) => [
      source.duration("agent.lease_ttl", { default: "10s" }),
      source.bool("mesh.greet", { default: false }),
    ];
    const env = {
      AGENTMESH_AGENT__LEASE_TLL: "1s",
      AGENTMESH_GRET: "1",
      AGENTMESH_PORT: "tcp://10.0.0.7:8080",
      AGENTMESH_AGENT_PORT_8080_TCP_ADDR: "10.0.0.7",
      AGENTMESH_AGENT_SERVICE_HOST: "10.0.0.7",
      AGENTMESH_AGENT_SERVICE_PORT_GRPC: "8080",
      HOME: "/root",
    };
    assert.deepEqual(problemsOf(read, { env }), [
      "AGENTMESH_AGENT__LEASE_TLL: unknown variable, did you mean AGENTMESH_AGENT__LEASE_TTL?",
      "AGENTMESH_GRET: unknown variable, did you mean AGENTMESH_GREET?",
    ]);
  });
});

describe("validation", () => {
  test("collects everything that is wrong, with what is expected and where it comes from", () => {
    using files = folder({
      "default.yaml":
        "agent:\n  lease_ttl: ten\n  lease_tll: 5s\n  replicas: 99\ntool: 7\nmodels:\n  api_key: short-secret\n",
    });
    const read: ReadConfig<unknown> = (source) => [
      source.duration("agent.lease_ttl", { default: "10s" }),
      source.int("agent.replicas", { min: 1, max: 9 }),
      source.string("tool.name", { default: "x" }),
      source.secret("models.api_key", { pattern: /am_.+/, expected: "a key that begins with am_" }),
      source.secret("mesh.secret"),
    ];
    const error = refusal(read, { dir: files.dir, env: { AGENTMESH_TOOL__NAM: "x" } });
    const message = error.message.replaceAll(`${files.dir}/`, "");
    assert.equal(
      message,
      [
        "the configuration has 7 problems:",
        '  agent.lease_ttl: expected duration such as 10s or 500ms, got "ten" (default.yaml:2)',
        "  agent.replicas: expected whole number from 1 up to 9, got 99 (a number) (default.yaml:4)",
        "  models.api_key: expected a key that begins with am_, the value is not shown (default.yaml:7)",
        "  mesh.secret: required (secret text); set it in a file or as AGENTMESH_SECRET or AGENTMESH_MESH__SECRET",
        "  agent.lease_tll: unknown key, did you mean agent.lease_ttl? (default.yaml:3)",
        "  tool: expected a section of keys (default.yaml:5)",
        "  AGENTMESH_TOOL__NAM: unknown variable, did you mean AGENTMESH_TOOL__NAME? (environment)",
      ].join("\n"),
    );
  });

  test("never shows a secret, wherever it was put", () => {
    const secret = "sk-ant-CANARY0123456789abcdef";
    const read: ReadConfig<unknown> = (source) => [
      source.secret("a.key", { pattern: /never/ }),
      source.secret("a.address", { protocols: ["postgres:"] }),
      source.int("a.port", { default: 1 }),
    ];
    const { message } = refusal(read, { values: { a: { key: secret, address: secret, port: secret, other: secret } } });
    assert.ok(!message.includes("CANARY"));
  });

  test("puts what is wrong before an error that a config function stumbles over", () => {
    const read: ReadConfig<unknown> = (source) => new URL(source.url("a.url"));
    const declare: ReadConfig<unknown> = (source) => source.int("other.n", { optional: true });
    const [first, ...rest] = problemsOf(read, { declare, values: { other: { n: 1 } } });
    assert.match(first ?? "", /^a\.url: required/);
    assert.deepEqual(rest, []);
    assert.throws(
      () =>
        given(() => {
          throw new RangeError("own bug");
        }, {}),
      RangeError,
    );
  });

  test("knows the keys of other processes' services without requiring them", () => {
    const agent: ReadConfig<number> = (source) => source.int("agent.n", { default: 1 });
    const tool: ReadConfig<unknown> = (source) => [source.secret("tool.key"), source.int("tool.n", { max: 5 })];
    const values = { tool: { n: 99 } };
    assert.equal(loadConfig(agent, { env: {}, dir: false, values, declare: tool }), 1);
    assert.deepEqual(problemsOf(agent, { values }), ["tool.n: unknown key, did you mean agent.n?"]);
  });

  test("says what a config function finds wrong across keys", () => {
    const read: ReadConfig<unknown> = (source) => {
      const mesh = source.section("mesh");
      if (mesh.string("target", { default: "all" }) !== "all") mesh.problem("target", "needs DATABASE_URL");
    };
    const error = refusal(read, { env: { MESH_TARGET: "agent" } });
    assert.deepEqual(error.problems, [{ key: "mesh.target", problem: "needs DATABASE_URL", origin: "MESH_TARGET" }]);
  });
});

describe("describeConfig", () => {
  const read: ReadConfig<unknown> = (source) => [
    source.duration("agent.lease_ttl", { default: 10_000, min: "1s", doc: "Life of a lease." }),
    source.secret("mesh.secret", { doc: "Root | secret." }),
    source.url("nats.url", { optional: true, protocols: ["nats:"] }),
    source.object("tiers", (raw) => raw, { default: { free: 1 }, doc: "Limits." }),
  ];

  test("lists every key with type, default, variables and meaning, and looks nothing up", () => {
    assert.deepEqual(describeConfig(read)[0], {
      key: "agent.lease_ttl",
      type: "duration such as 10s or 500ms from 1s",
      default: "10s",
      required: false,
      secret: false,
      env: ["AGENTMESH_AGENT__LEASE_TTL"],
      doc: "Life of a lease.",
    });
    assert.deepEqual(
      describeConfig(read).map(({ key }) => key),
      ["agent.lease_ttl", "mesh.secret", "nats.url", "tiers"],
    );
  });

  test("prints as a Markdown table", () => {
    assert.equal(
      configTable(describeConfig(read).slice(1)),
      [
        "| Key | Type | Default | Environment | Meaning |",
        "| --- | --- | --- | --- | --- |",
        "| `mesh.secret` | secret text (secret) | required | `AGENTMESH_SECRET` `AGENTMESH_MESH__SECRET` | Root \\| secret. |",
        "| `nats.url` | address beginning with nats:// |  | `NATS_URL` `AGENTMESH_NATS__URL` |  |",
        '| `tiers` | map | `{"free":1}` | `AGENTMESH_TIERS` | Limits. |',
        "",
      ].join("\n"),
    );
  });
});

test("a secret that was read is a Secret", () => {
  const secret = given((source) => source.secret("a.b"), {}, { AGENTMESH_A__B: "x" });
  assert.ok(secret instanceof Secret);
  assert.equal(secret.reveal(), "x");
});
