import { randomUUID } from "node:crypto";
import type { JsonObject } from "@bufbuild/protobuf";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import type { TestDatabase } from "#platform/testing/private-postgres.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import type { Kind } from "./id-fields.ts";
import type { MeshOfTwo } from "./mesh-of-two.ts";
import { asSuperuser } from "./row-security.ts";

/** Somebody with a credential, and what is theirs. */
export interface Actor {
  readonly name: string;
  readonly key: string;
  readonly principal: Principal;
  /** Ids of what they own, several of a kind where its forms differ: a session by its own id and by the caller's UUID. */
  readonly owns: Readonly<Record<OwnedKind, readonly string[]>>;
  /** Texts that only they may see. */
  readonly texts: readonly string[];
}

export type OwnedKind = Extract<Kind, "tenant" | "session" | "run" | "agent" | "key" | "user" | "approval" | "message">;

/** Two tenants as callers make them over REST: a victim, another user beside it, and a second tenant with a user and a machine. */
export interface Actors {
  readonly victim: Actor;
  readonly neighbour: Actor;
  readonly strangerMachine: Actor;
  readonly strangerUser: Actor;
}

/** What a user's credential may do: no changes of what belongs to the tenant, and not `sessions:read_all`. */
const USER_SCOPES = [
  "agents:read",
  "agents:run",
  "sessions:write",
  "runs:write",
  "approvals:read",
  "approvals:resolve",
  "keys:write",
  "tools:read",
  "tools:invoke",
  "tenant:read",
];

export async function createActors(mesh: Pick<MeshOfTwo, "gatewayUrl" | "adminKey" | "database">): Promise<Actors> {
  const admin = new RestClient(mesh.gatewayUrl, mesh.adminKey);
  const [theirs, others] = [await tenantOf(admin), await tenantOf(admin)];
  const actors = {
    victim: await furnish(admin, theirs, "victim", USER_SCOPES),
    neighbour: await furnish(admin, theirs, "neighbour", USER_SCOPES),
    strangerMachine: await furnish(admin, others, "stranger machine", TENANT_SCOPES, "machine"),
    strangerUser: await furnish(admin, others, "stranger user", USER_SCOPES),
  };
  for (const actor of Object.values(actors)) {
    await keepOutput(mesh.database, actor);
    await buryRuns(mesh.database, actor);
  }
  return actors;
}

/** No tool of theirs says so much that its output is kept, so that one can be read. */
async function keepOutput(database: TestDatabase, { principal, owns, texts }: Actor): Promise<void> {
  const { tenantId, userId = "" } = principal;
  await asSuperuser(
    database,
    `INSERT INTO tool.tool_outputs (tenant_id, session_id, end_user_id, call_id, tool, content, whole_bytes)
     VALUES ($1, $2, $3, 'call_1', 'todo', convert_to($4, 'UTF8'), length($4))`,
    [tenantId, owns.session[0], userId, texts[0]],
  );
}

/** No run of theirs has cost the server so much that it was given up. Put back as they are: a repeat answers the same. */
async function buryRuns(database: TestDatabase, { principal, owns, texts }: Actor): Promise<void> {
  const { tenantId, userId = "" } = principal;
  await asSuperuser(
    database,
    `INSERT INTO agent.dead_letters (tenant_id, run_id, session_id, end_user_id, agent_id, subject, input, reason, message,
       attempts, queue_time, redriven_by, redrive_time)
     SELECT $1, r.run_id, r.session_id, $3, r.agent_id, 'agentmesh.run_work', $4, 'RUN_POISONED', $5, 5, now(), $6, now()
     FROM agent.runs r WHERE r.tenant_id = $1 AND r.run_id = ANY ($2)`,
    [tenantId, owns.run, userId, JSON.stringify({ message: texts[0] }), texts[0], owns.run[0]],
  );
}

interface Tenant {
  readonly id: string;
  readonly machineKey: string;
}

async function tenantOf(admin: RestClient): Promise<Tenant> {
  const tenant = { name: `tenant ${randomUUID()}`, tier: "TENANT_TIER_ENTERPRISE" };
  const { tenant_id: id } = await ask(admin, "POST", "/api/v1/tenants", tenant);
  const { secret } = await ask(admin, "POST", `/api/v1/tenants/${id}/api-keys`, { name: "machine" });
  await putModelCredential(admin.as(String(secret)));
  return { id: String(id), machineKey: String(secret) };
}

async function furnish(
  admin: RestClient,
  tenant: Tenant,
  name: string,
  scopes: readonly string[],
  machine?: "machine",
): Promise<Actor> {
  const owner = admin.as(tenant.machineKey);
  const userId = `usr_${randomUUID().replaceAll("-", "")}`;
  const bound = machine === undefined ? { user_id: userId } : {};
  const made = await ask(owner, "POST", "/api/v1/api-keys", { name, scopes, ...bound });
  const keyId = String((made["api_key"] as JsonObject)["api_key_id"]);
  const key = String(made["secret"]);
  const rest = admin.as(key);
  const text = `secret-${randomUUID()}`;
  const external = randomUUID();

  const session = await ask(rest, "POST", "/api/v1/sessions", { title: text });
  const sessionId = String(session["session_id"]);
  const run = await ask(rest, "POST", "/api/v1/chat", {
    message: `${text} [[tool:todo {"action":"add","text":"${text}"}]]`,
    session_id: sessionId,
  });
  await ask(rest, "POST", "/api/v1/chat", { message: `${text} again`, session_id: sessionId });
  const inExternal = await ask(rest, "POST", "/api/v1/chat", { message: text, session_id: external });
  const slow = await ask(rest, "POST", "/api/v1/runs", { message: `[[slow 2000]] [[deltas 200]] ${text}` });
  const running = slow["run"] as JsonObject;
  const spare = await ask(rest, "POST", "/api/v1/api-keys", { name: text, scopes: ["sessions:read"] });
  const agent = await ask(owner, "POST", "/api/v1/tenants/me/agents", {
    name: `agent ${randomUUID()}`,
    description: text,
  });
  await putProfile(owner, userId, text);
  const approvals = [await askApproval(owner, text, bound), await askApproval(owner, text, bound)];
  const said = await ask(rest, "GET", `/api/v1/sessions/${sessionId}/messages`);
  const messageId = String((said["messages"] as JsonObject[])[0]?.["message_id"]);
  return {
    name,
    key,
    principal: {
      tenantId: tenant.id,
      subject: keyId,
      scopes,
      userId: machine === undefined ? userId : undefined,
      credentialId: keyId,
      actors: [],
    },
    owns: {
      tenant: [tenant.id],
      session: [sessionId, external],
      run: [String(run["run_id"]), String(running["run_id"])],
      agent: [String(agent["agent_id"])],
      key: [String((spare["api_key"] as JsonObject)["api_key_id"])],
      user: [userId],
      approval: approvals,
      message: [messageId],
    },
    texts: [
      text,
      String(inExternal["run_id"]),
      String(running["session_id"]),
      String(spare["secret"]),
      String(run["run_id"]),
      String(running["run_id"]),
      sessionId,
      external,
      ...approvals,
      messageId,
    ],
  };
}

/** A run that waits for leave, for the user if there is one; asked for by a credential that cannot decide itself. */
async function askApproval(owner: RestClient, text: string, { user_id }: { user_id?: string }): Promise<string> {
  const agent = await ask(owner, "POST", "/api/v1/tenants/me/agents", {
    name: `careful ${randomUUID()}`,
    tools: ["todo"],
    approval_policy: { tools: ["todo"] },
  });
  const answer = await ask(owner, "POST", "/api/v1/chat", {
    message: `${text} [[tool:todo {"action":"list"}]]`,
    agent_id: agent["agent_id"],
    ...(user_id === undefined ? {} : { end_user_id: user_id }),
  });
  const [pending] = answer["pending_approvals"] as JsonObject[];
  return String(pending?.["approval_id"]);
}

/** What agents are told of a user, whom callers name as they like. */
export async function putProfile(owner: RestClient, userId: string, text: string): Promise<void> {
  await ask(owner, "PUT", `/api/v1/tenants/me/user-profiles/${userId}`, { display_name: text });
}

/** A tenant's own key for a provider whose models no agent here uses. */
export async function putModelCredential(owner: RestClient): Promise<void> {
  await ask(owner, "PUT", "/api/v1/tenants/me/model-credentials/openai", { api_key: `sk-${randomUUID()}` });
}

/** Something of the actor's that a probe may destroy. */
export async function fresh(rest: RestClient, kind: OwnedKind): Promise<string | undefined> {
  if (kind === "session") return String((await ask(rest, "POST", "/api/v1/sessions", {}))["session_id"]);
  if (kind === "agent") {
    const agent = { name: `agent ${randomUUID()}` };
    return String((await ask(rest, "POST", "/api/v1/tenants/me/agents", agent))["agent_id"]);
  }
  if (kind !== "key") return undefined;
  const made = await ask(rest, "POST", "/api/v1/api-keys", { name: "spare", scopes: ["sessions:read"] });
  return String((made["api_key"] as JsonObject)["api_key_id"]);
}

/** A run that is at work for some seconds. */
export async function liveRun(rest: RestClient): Promise<string> {
  const { run } = await ask(rest, "POST", "/api/v1/runs", { message: "[[slow 1000]] [[deltas 10]] hello" });
  return String((run as JsonObject)["run_id"]);
}

/** A run that has failed, and is the newest of its session. */
export async function failedRun(rest: RestClient): Promise<string> {
  const { body } = await rest.call("POST", "/api/v1/chat", { message: "[[error 400]] hello" });
  const facts = (body as { error?: { details?: { metadata?: { run_id?: string } }[] } }).error?.details ?? [];
  const runId = facts.find(({ metadata }) => metadata?.run_id !== undefined)?.metadata?.run_id;
  if (runId === undefined) throw new Error(`no run has failed: ${JSON.stringify(body)}`);
  return runId;
}

/** An id of the same form that nothing has. */
export function missingLike(value: string): string {
  if (/^[0-9a-f-]{36}$/.test(value)) return randomUUID();
  const [, prefix] = /^([a-z]+)_[0-9a-z]{26}$/.exec(value) ?? [];
  if (prefix !== undefined) return newId(prefix);
  if (value.startsWith("usr_")) return `usr_${randomUUID().replaceAll("-", "")}`;
  // A page token: the same length and alphabet.
  return [...value].map(() => "abcdefghijklmnopqrstuvwxyz0123456789"[Math.floor(Math.random() * 36)]).join("");
}

/** What the victim sees of its own, to be the same before and after. Its running run and the use of its keys move on. */
export async function snapshot(baseUrl: string, { key, owns, principal }: Actor): Promise<string> {
  const rest = new RestClient(baseUrl, key);
  const paths = [
    "/api/v1/sessions?page_size=200",
    "/api/v1/runs?page_size=200",
    "/api/v1/api-keys?page_size=200&show_revoked=true",
    `/api/v1/tenants/${principal.tenantId}`,
    ...owns.agent.map((id) => `/api/v1/tenants/me/agents/${id}`),
    ...owns.session.map((id) => `/api/v1/sessions/${id}/messages`),
    `/api/v1/runs/${owns.run[0]}/events?page_size=200`,
    "/api/v1/approvals?page_size=200",
  ];
  const seen: unknown[] = [];
  for (const path of paths) seen.push(await ask(rest, "GET", path));
  const moving = new Set(["last_seq", "last_use_time", "update_time", "updated_at"]);
  return JSON.stringify(seen, (name, value: unknown) => (moving.has(name) ? undefined : value), 1);
}

async function ask(rest: RestClient, method: string, path: string, body?: unknown): Promise<JsonObject> {
  // With a key, so that there are rows of answered requests to reach for.
  const once = method === "POST" ? { "idempotency-key": randomUUID() } : undefined;
  const answer = await rest.call(method, path, body, once);
  if (answer.status !== 200) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body as JsonObject;
}
