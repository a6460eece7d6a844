import assert from "node:assert/strict";
import { glob } from "node:fs/promises";
import { describe, test } from "node:test";
import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescService,
  getOption,
  hasOption,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Idempotency } from "@bufbuild/protobuf/wkt";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { ApiKeyService } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { TokenService } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { auth, Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import { sse } from "#gen/agentmesh/common/v1/sse_option_pb.ts";
import { AgentConfigService } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { TenantService } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { UserProfileService } from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { http } from "#gen/google/api/annotations_pb.ts";
import type { HttpRule } from "#gen/google/api/http_pb.ts";
import { authRule, isPublic } from "./method-rules.ts";
import { INTERNAL_VERIFY, isScope } from "./scopes.ts";

const gen = new URL("../../gen/agentmesh/", import.meta.url);
const services: DescService[] = [
  AgentConfigService,
  ApiKeyService,
  ApprovalService,
  ChatService,
  ModelCredentialService,
  ResolutionService,
  RunService,
  RunTailService,
  SessionService,
  TenantService,
  TokenService,
  ToolExecutionService,
  ToolService,
  UserProfileService,
];

const methods = (): DescMethod[] => services.flatMap((service) => service.methods);
const nameOf = (method: DescMethod) => `${method.parent.typeName}.${method.name}`;
const isRead = (method: DescMethod) => method.idempotency === Idempotency.NO_SIDE_EFFECTS;

/** Runs a rule over every method and names all that break it. */
function everyMethod(which: (method: DescMethod) => boolean, rule: (method: DescMethod) => boolean): void {
  const covered = methods().filter(which);
  assert.notEqual(covered.length, 0, "the rule covers no method");
  assert.deepEqual(covered.filter((method) => !rule(method)).map(nameOf), []);
}

function field(message: DescMessage, name: string): DescField | undefined {
  return message.fields.find((one) => one.name === name);
}

/** The field at a dotted path of proto names; undefined when there is none. */
function fieldAt(message: DescMessage, path: string): DescField | undefined {
  const [name = "", ...rest] = path.split(".");
  const found = field(message, name);
  if (rest.length === 0 || found === undefined) return found;
  return found.fieldKind === "message" ? fieldAt(found.message, rest.join(".")) : undefined;
}

function routesOf(rule: HttpRule): { verb: string; path: string; rule: HttpRule }[] {
  const { pattern } = rule;
  assert.ok(pattern.case !== undefined && pattern.case !== "custom" && typeof pattern.value === "string");
  return [{ verb: pattern.case, path: pattern.value, rule }, ...rule.additionalBindings.flatMap(routesOf)];
}

const routes = () =>
  methods()
    .filter((method) => hasOption(method, http))
    .flatMap((method) => routesOf(getOption(method, http)).map((route) => ({ method, ...route })));

describe("the contract", () => {
  test("is read whole: a service per service file", async () => {
    const files = await Array.fromAsync(glob("**/*_service_pb.ts", { cwd: gen }));
    assert.notEqual(files.length, 0);
    assert.deepEqual(services.map(({ file }) => `${file.name.replace("agentmesh/", "")}_pb.ts`).sort(), files.sort());
  });

  test("every method declares where it is reachable", () => {
    everyMethod(
      () => true,
      (method) => hasOption(method, auth) && getOption(method, auth).exposure !== Exposure.UNSPECIFIED,
    );
  });

  test("every method but an anonymous one names known scopes, each once", () => {
    everyMethod(
      (method) => authRule(method).exposure !== Exposure.ANONYMOUS,
      (method) => {
        const { anyScope, exposure } = authRule(method);
        const known = (scope: string) =>
          isScope(scope) || (scope === INTERNAL_VERIFY && exposure === Exposure.INTERNAL);
        return anyScope.length > 0 && anyScope.every(known) && new Set(anyScope).size === anyScope.length;
      },
    );
  });

  test("a public read needs no write scope", () => {
    everyMethod(
      (method) => isPublic(method) && isRead(method),
      (method) => authRule(method).anyScope.every((scope) => scope.endsWith(":read") || scope === "platform:admin"),
    );
  });

  test("requests and responses are named after their method and used once", () => {
    everyMethod(
      () => true,
      ({ name, input, output }) => input.name === `${name}Request` && output.name === `${name}Response`,
    );
    const used = methods().flatMap(({ input, output }) => [input.typeName, output.typeName]);
    assert.equal(new Set(used).size, used.length);
  });

  test("every list is read-only, and paged unless what it lists is few by nature", () => {
    const list = (method: DescMethod) => method.name.startsWith("List");
    everyMethod(list, isRead);
    // One credential per provider; the todos of one session, for the agent service.
    const few = ["ListModelCredentials", "ListOpenTodos"];
    const long = (method: DescMethod) => list(method) && !few.includes(method.name);
    everyMethod(long, ({ input, output }) => {
      const size = field(input, "page_size");
      const texts = [field(input, "page_token"), field(output, "next_page_token")];
      const items = output.fields.filter(({ fieldKind }) => fieldKind === "list");
      return size?.fieldKind === "scalar" && texts.every((one) => one?.fieldKind === "scalar") && items.length === 1;
    });
  });

  test("every public write can be repeated safely: it has request_id", () => {
    everyMethod(
      (method) => isPublic(method) && !isRead(method),
      ({ input }) => field(input, "request_id")?.fieldKind === "scalar",
    );
  });

  test("what reads is GET on REST, what does not is not", () => {
    everyMethod(
      (method) => hasOption(method, http),
      (method) => routesOf(getOption(method, http)).every(({ verb }) => (verb === "get") === isRead(method)),
    );
  });

  test("every public method has a route, and every route is a verb and path of its own", () => {
    everyMethod(isPublic, (method) => hasOption(method, http));
    // Variables match any segment, so paths that differ in a variable's name only are one path.
    const keys = routes().map(({ verb, path }) => `${verb} ${path.replaceAll(/\{[^}]*\}/g, "{}")}`);
    assert.deepEqual(
      keys.filter((key, index) => keys.indexOf(key) !== index),
      [],
    );
    // A verb of its own is in lower camel case (AIP-136).
    for (const { path } of routes()) assert.match(path, /^\/api\/v1\/[a-z0-9{}_./=*-]+(:[a-z][A-Za-z]*)?$/);
  });

  test("an internal method has no route", () => {
    everyMethod(
      (method) => authRule(method).exposure === Exposure.INTERNAL,
      (method) => !hasOption(method, http),
    );
  });

  test("paths, bodies and response bodies name fields that exist", () => {
    for (const { method, path, rule } of routes()) {
      for (const [, variable = ""] of path.matchAll(/\{([^}=]*)[^}]*\}/g)) {
        assert.equal(fieldAt(method.input, variable)?.fieldKind, "scalar", `${nameOf(method)}: {${variable}}`);
      }
      const { body, responseBody } = rule;
      if (body !== "" && body !== "*") assert.ok(field(method.input, body), `${nameOf(method)}: body ${body}`);
      if (responseBody !== "") assert.ok(field(method.output, responseBody), `${nameOf(method)}: ${responseBody}`);
    }
  });

  test("server-sent events are declared on server streams only, and their paths exist", () => {
    const declared = methods().filter((method) => hasOption(method, sse));
    assert.notEqual(declared.length, 0);
    for (const method of declared) {
      const name = nameOf(method);
      assert.equal(method.methodKind, "server_streaming", name);
      const { id, data, eventOneof, resumeField } = getOption(method, sse);
      assert.equal(fieldAt(method.output, id)?.fieldKind, "scalar", `${name}: id ${id}`);
      const frame = data === "" ? undefined : fieldAt(method.output, data);
      assert.ok(data === "" || frame?.fieldKind === "message", `${name}: data ${data}`);
      const message = frame?.fieldKind === "message" ? frame.message : method.output;
      const oneofs = message.oneofs.map((oneof) => oneof.name);
      if (eventOneof !== "") assert.ok(oneofs.includes(eventOneof), `${name}: oneof ${eventOneof}`);
      if (resumeField !== "") assert.ok(field(method.input, resumeField), `${name}: resume ${resumeField}`);
    }
    everyMethod(
      (method) => isPublic(method) && method.methodKind === "server_streaming",
      (method) => hasOption(method, sse),
    );
  });

  test("a request field and a path variable never share a JSON name with another field", () => {
    for (const { input } of methods()) {
      const names = input.fields.flatMap(({ name, jsonName }) => [...new Set([name, jsonName])]);
      assert.equal(new Set(names).size, names.length, input.typeName);
    }
  });
});

describe("AgentEvent", () => {
  test("has a payload per event, whose names are the values of `type` and never change", () => {
    const payload = AgentEventSchema.oneofs.find(({ name }) => name === "payload");
    const names = payload?.fields.map(({ name, number }) => `${number} ${name}`);
    assert.deepEqual(names, [
      "16 run_started",
      "17 run_suspended",
      "18 run_resumed",
      "19 run_completed",
      "20 run_failed",
      "21 run_cancelled",
      "22 input_accepted",
      "24 step_started",
      "25 step_completed",
      "28 message_started",
      "29 text_delta",
      "30 message_completed",
      "31 item_discarded",
      "34 reasoning_delta",
      "35 reasoning_completed",
      "38 tool_call_started",
      "39 tool_call_arguments_delta",
      "40 tool_call_requested",
      "41 tool_call_progress",
      "42 tool_call_completed",
      "46 approval_requested",
      "47 approval_resolved",
      "50 usage_updated",
      "51 model_call_booked",
      "52 context_compacted",
      "53 tool_outputs_evicted",
      "54 notice",
      "55 escalated",
    ]);
    const messages = payload?.fields.map((one) => (one.fieldKind === "message" ? one.message.typeName : ""));
    assert.equal(new Set(messages).size, names?.length, "a payload message per event");
  });
});
