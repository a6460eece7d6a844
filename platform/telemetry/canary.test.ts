import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import { InMemorySpanExporter } from "@opentelemetry/sdk-trace";
import { agentLog } from "./agent-log.ts";
import { createLog } from "./log.ts";
import type { LogFields } from "./log-fields.ts";
import { Secret } from "./secret.ts";
import { withSpan } from "./trace.ts";
import { startTracing } from "./tracing.ts";

const PLANTED: Readonly<Record<string, string>> = {
  apiKey: `am_live_01k9zabcdefghjkmnpqrstvwxy_${"Zq7".repeat(14)}x_9f8e7d`,
  modelKey: "sk-ant-api03-CANARY_model-0123456789abcdef",
  webhookSecret: "whsec_CANARYwebhook0123456789abcdefABCDEF",
  jwt: "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYW5hcnkifQ.Q0FOQVJZc2lnbmF0dXJl",
  bearer: "CANARYbearer0123456789",
  card: "6222021234567890",
  idCard: "11010119900307123X",
  phone: "13912345678",
  email: "canary.person@example.com",
  databasePassword: "CANARYdbpass",
};
const PASSWORD = "CANARYplainpassword";

/** Sentences as they occur: keys in URLs and headers, personal data in Chinese text without spaces. */
const TEXTS = [
  `refused ${PLANTED["apiKey"]}`,
  `provider said: invalid x-api-key ${PLANTED["modelKey"]}`,
  `endpoint secret=${PLANTED["webhookSecret"]}`,
  `token ${PLANTED["jwt"]} expired`,
  `Authorization: Bearer ${PLANTED["bearer"]}`,
  `用户卡号${PLANTED["card"]}，身份证${PLANTED["idCard"]}，手机${PLANTED["phone"]}号，邮箱${PLANTED["email"]}谢谢`,
  `cannot reach postgres://mesh:${PLANTED["databasePassword"]}@db:5432/mesh`,
  JSON.stringify({ user: "u", password: PASSWORD, nested: JSON.stringify({ client_secret: PASSWORD }) }),
  inspect({ headers: { cookie: `sid=${PASSWORD}`, "x-api-key": PASSWORD } }),
];

function assertClean(output: string, where: string): void {
  for (const [name, value] of Object.entries({ ...PLANTED, password: PASSWORD })) {
    assert.ok(!output.includes(value), `${name} in ${where}`);
  }
}

describe("planted secrets and personal data", () => {
  for (const pretty of [false, true]) {
    test(`leave no trace in the ${pretty ? "pretty" : "JSON"} log`, () => {
      let output = "";
      const destination = { write: (line: string) => (output += line) };
      const log = createLog({ level: "trace", service: "canary", destination, pretty });
      const nested = {
        a: [{ b: TEXTS }],
        password: PASSWORD,
        map: new Map([["k", TEXTS]]),
        secret: new Secret(PASSWORD),
      };
      for (const text of TEXTS) {
        const error = Object.assign(new Error(text, { cause: new AggregateError([new Error(text)], text) }), {
          detail: PASSWORD,
          request: { headers: { authorization: PASSWORD } },
        });
        log.info(text);
        log.warn({ err: error, context: nested, args: text, path: text, [text]: text } as LogFields, text);
        log.child({ user_agent: text, details: nested }).error(error);
        const agent = agentLog(log.child({ tenant_id: text }));
        agent.toolCall({
          tool: text,
          args: { text, numbers: [13912345678, 6222021234567890n] },
          durationMs: 1,
          success: true,
        });
        agent.error(error, { text, nested });
        agent.error(text);
      }
      assert.ok(output.length > 10_000);
      assertClean(output, "the log");
    });
  }

  test("leave no trace in spans", async () => {
    const exporter = new InMemorySpanExporter();
    const tracing = startTracing({ service: "canary", exporter });
    for (const text of TEXTS) {
      assert.throws(() =>
        withSpan(
          `tool.${text}`,
          { text, list: [text], "tool.args": JSON.stringify({ text }), password: PASSWORD },
          (span) => {
            span.addEvent(text, { text });
            span.addLink({ context: span.spanContext(), attributes: { text } });
            span.setAttribute(text, text);
            throw new Error(text);
          },
        ),
      );
    }
    await tracing.flush();
    const spans = exporter
      .getFinishedSpans()
      .map(({ name, attributes, events, links, status }) => ({ name, attributes, events, links, status }));
    await tracing.shutdown();
    assert.equal(spans.length, TEXTS.length);
    assertClean(JSON.stringify(spans), "a span");
    assertClean(inspect(spans, { depth: null }), "an inspected span");
  });
});
