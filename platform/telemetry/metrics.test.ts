import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { agentMetrics } from "./agent-metrics.ts";
import { createMetrics } from "./metrics.ts";
import { rpcMetrics } from "./rpc-metrics.ts";

const open = (limits = {}, rerankMs = 0) => createMetrics({ process: false, limits, rerankMs });

/** The samples of one metric: `labels` → value. */
function samples(text: string, name: string): Record<string, number> {
  const found = [...text.matchAll(new RegExp(`^${name}(?:\\{(.*)\\})? (\\S+)$`, "gm"))];
  return Object.fromEntries(found.map(([, labels, value]) => [labels ?? "", Number(value)]));
}

describe("the metrics of a process", () => {
  test("keep the design document's names, labels and buckets", async () => {
    const metrics = open();
    const agent = agentMetrics(metrics);
    const tenant_id = "ten_1";
    agent.requests.inc({ tenant_id, status: "success" });
    agent.requestDuration.observe({ tenant_id }, 0.3);
    agent.iterations.observe({ tenant_id }, 3);
    agent.toolCalls.inc({ tenant_id, tool_name: "todo", status: "error" });
    agent.toolDuration.observe({ tool_name: "todo" }, 0.01);
    agent.tokens.inc({ tenant_id, model: "m", type: "input" }, 17);
    agent.activeSessions.inc({ tenant_id }, 2);
    agent.activeSessions.dec({ tenant_id });
    agent.apiCalls.inc({ api: "anthropic", status: "success" });
    agent.apiCallDuration.observe({ api: "anthropic" }, 1);
    const rpc = rpcMetrics(metrics);
    rpc.requests.inc({ service: "s", method: "m", code: "ok" });
    rpc.duration.observe({ service: "s", method: "m" }, 0.2);

    const text = await metrics.text();
    assert.deepEqual(samples(text, "agent_requests_total"), { 'tenant_id="ten_1",status="success"': 1 });
    assert.deepEqual(samples(text, "agent_tool_calls_total"), {
      'tenant_id="ten_1",tool_name="todo",status="error"': 1,
    });
    assert.deepEqual(samples(text, "agent_tokens_total"), { 'tenant_id="ten_1",model="m",type="input"': 17 });
    assert.deepEqual(samples(text, "agent_active_sessions"), { 'tenant_id="ten_1"': 1 });
    assert.deepEqual(samples(text, "api_call_total"), { 'api="anthropic",status="success"': 1 });
    assert.deepEqual(samples(text, "rpc_server_requests_total"), { 'service="s",method="m",code="ok"': 1 });
    const bounds = (name: string) =>
      Object.keys(samples(text, `${name}_bucket`)).map((labels) => /le="([^"]+)"/.exec(labels)?.[1]);
    assert.deepEqual(bounds("agent_request_duration_seconds"), ["0.1", "0.5", "1", "2", "5", "10", "30", "+Inf"]);
    assert.deepEqual(bounds("agent_iterations_total"), ["1", "2", "5", "10", "20", "50", "+Inf"]);
    assert.equal(bounds("agent_tool_duration_seconds").length, 15);
    assert.equal(bounds("api_call_duration_seconds").length, 15);
    assert.equal(bounds("rpc_server_duration_seconds").length, 15);
    assert.match(metrics.contentType, /^text\/plain/);
  });

  test("are shared by everyone who declares them, and refuse another shape", async () => {
    const metrics = open();
    agentMetrics(metrics).requests.inc({ tenant_id: "t", status: "success" });
    agentMetrics(metrics).requests.inc({ tenant_id: "t", status: "success" });
    assert.deepEqual(samples(await metrics.text(), "agent_requests_total"), { 'tenant_id="t",status="success"': 2 });
    assert.throws(
      () => metrics.counter("agent_requests_total", "", ["tenant_id"]),
      /already a counter with the labels/,
    );
    assert.throws(() => metrics.gauge("agent_requests_total", "", ["tenant_id", "status"]), /already a counter/);
  });

  test("bound tenants, tools and models, and add the rest up as other", async () => {
    const metrics = open({ tenants: 2, tools: 1, models: 1 }, 60_000);
    const { requests, toolDuration, tokens } = agentMetrics(metrics);
    for (let i = 0; i < 10; i++) {
      requests.inc({ tenant_id: `t${i}`, status: "success" });
      toolDuration.observe({ tool_name: `tool${i}` }, 1);
      tokens.inc({ tenant_id: "t0", model: `m${i}`, type: "input" });
    }
    const text = await metrics.text();
    assert.deepEqual(samples(text, "agent_requests_total"), {
      'tenant_id="t0",status="success"': 1,
      'tenant_id="t1",status="success"': 1,
      'tenant_id="other",status="success"': 8,
    });
    assert.deepEqual(samples(text, "agent_tool_duration_seconds_count"), {
      'tool_name="tool0"': 1,
      'tool_name="other"': 9,
    });
    assert.equal(Object.keys(samples(text, "agent_tokens_total")).length, 2);
  });

  test("show the busiest tenants: a quiet one's series goes when a busy one takes its place", async () => {
    const metrics = open({ tenants: 1 });
    const { requests, requestDuration } = agentMetrics(metrics);
    requests.inc({ tenant_id: "quiet", status: "success" });
    requestDuration.observe({ tenant_id: "quiet" }, 1);
    for (let i = 0; i < 20; i++) requests.inc({ tenant_id: "busy", status: "success" });
    await metrics.text();
    requests.inc({ tenant_id: "busy", status: "success" });
    const text = await metrics.text();
    assert.deepEqual(samples(text, "agent_requests_total"), {
      'tenant_id="other",status="success"': 20,
      'tenant_id="busy",status="success"': 1,
    });
    assert.deepEqual(samples(text, "agent_request_duration_seconds_count"), {});
  });

  test("keep gauges true when tenants change places", async () => {
    const metrics = open({ tenants: 1 });
    const { requests, activeSessions } = agentMetrics(metrics);
    activeSessions.inc({ tenant_id: "quiet" });
    for (const tenant_id of ["busy", "busy", "third"]) activeSessions.inc({ tenant_id });
    assert.deepEqual(samples(await metrics.text(), "agent_active_sessions"), {
      'tenant_id="quiet"': 1,
      'tenant_id="other"': 3,
    });
    for (let i = 0; i < 50; i++) requests.inc({ tenant_id: "busy", status: "success" });
    assert.deepEqual(samples(await metrics.text(), "agent_active_sessions"), {
      'tenant_id="busy"': 2,
      'tenant_id="other"': 2,
    });
    for (const tenant_id of ["busy", "busy", "quiet", "third"]) activeSessions.dec({ tenant_id });
    await metrics.text();
    assert.deepEqual(samples(await metrics.text(), "agent_active_sessions"), { 'tenant_id="busy"': 0 });
  });

  test("do not take being scraped for being used", async () => {
    const metrics = open({ tenants: 1 });
    const { requests, activeSessions } = agentMetrics(metrics);
    activeSessions.inc({ tenant_id: "quiet" });
    for (let scrape = 0; scrape < 10; scrape++) {
      for (let i = 0; i < 2; i++) requests.inc({ tenant_id: "busy", status: "success" });
      await metrics.text();
    }
    assert.deepEqual(samples(await metrics.text(), "agent_active_sessions"), { 'tenant_id="other"': 1 });
  });

  test("ignore values that are no number, and never throw for a value", async () => {
    const metrics = open();
    const { requests, requestDuration, activeSessions } = agentMetrics(metrics);
    requests.inc({ tenant_id: "t", status: "success" }, Number.NaN);
    requests.inc({ tenant_id: "t", status: "success" }, -1);
    requestDuration.observe({ tenant_id: "t" }, Number.POSITIVE_INFINITY);
    activeSessions.set({ tenant_id: "t" }, Number.NaN);
    assert.deepEqual(samples(await metrics.text(), "agent_\\w+"), {});
  });

  test("escape label values", async () => {
    const metrics = open();
    agentMetrics(metrics).toolDuration.observe({ tool_name: 'a"\n# HELP b' }, 1);
    assert.match(await metrics.text(), /tool_name="a\\"\\n# HELP b"/);
  });

  test("include the process's own", async () => {
    const text = await createMetrics().text();
    for (const name of ["process_cpu_seconds_total", "process_resident_memory_bytes", "nodejs_eventloop_lag_seconds"]) {
      assert.ok(name in Object.fromEntries([...text.matchAll(/^(\w+) /gm)].map(([, each]) => [each, 1])), name);
    }
  });
});
