import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { newId } from "#platform/id.ts";
import { type MeshUnderTest, startMesh } from "#tests/e2e/mesh-under-test.ts";

// biome-ignore lint/suspicious/noExplicitAny: a client made at run time has no types
type Loose = any;

const PROTOS = join(import.meta.dirname, "../../proto");

/** Clients and codecs of the gRPC project, made from the proto files: nothing of ours takes part on the client's side. */
function clients(baseUrl: string): Record<"chat" | "runs" | "sessions", Loose> {
  const definition = loadSync(
    ["chat_service", "run_service", "session_service"].map((name) => `agentmesh/agent/v1/${name}.proto`),
    { includeDirs: [PROTOS], keepCase: true, longs: String, enums: String, oneofs: true },
  );
  const { v1 } = (grpc.loadPackageDefinition(definition) as Loose).agentmesh.agent;
  const address = new URL(baseUrl).host;
  const plain = grpc.credentials.createInsecure();
  return {
    chat: new v1.ChatService(address, plain),
    runs: new v1.RunService(address, plain),
    sessions: new v1.SessionService(address, plain),
  };
}

describe("@grpc/grpc-js as a client", () => {
  let mesh: MeshUnderTest;
  let client: ReturnType<typeof clients>;
  before(async () => {
    mesh = await startMesh("embedded");
    client = clients(mesh.baseUrl);
  });
  after(async () => {
    for (const one of Object.values(client ?? {})) one.close();
    await mesh?.stop();
  });

  const metadata = (more: Record<string, string> = {}) => {
    const made = new grpc.Metadata();
    made.set("authorization", `Bearer ${mesh.adminKey}`);
    for (const [name, value] of Object.entries(more)) made.set(name, value);
    return made;
  };
  const within = (ms = 20_000) => ({ deadline: Date.now() + ms });
  const unary = (service: Loose, method: string, request: object, sent = metadata(), options = within()) =>
    new Promise<{ answer: Loose; headers: grpc.Metadata }>((resolve, reject) => {
      let headers = new grpc.Metadata();
      const call = service[method](request, sent, options, (error: grpc.ServiceError | null, answer: Loose) =>
        error === null ? resolve({ answer, headers }) : reject(error),
      );
      call.on("metadata", (received: grpc.Metadata) => {
        headers = received;
      });
    });

  test("makes unary calls, and its metadata arrives and comes back", async () => {
    const sent = metadata({ "x-request-id": "req-of-grpc-js" });
    const { answer, headers } = await unary(client.sessions, "CreateSession", { session: { title: "界" } }, sent);
    assert.equal(answer.session.title, "界");
    assert.deepEqual(headers.get("x-request-id"), ["req-of-grpc-js"]);
    const again = await unary(client.sessions, "GetSession", { session_id: answer.session.session_id });
    assert.deepEqual(again.answer.session, answer.session);
  });

  test("reads a stream to its end", async () => {
    const stream = client.chat.ChatStream({ message: "hello there" }, metadata(), within());
    const events: Loose[] = [];
    for await (const { event } of stream) events.push(event);
    assert.ok(events.length >= 2);
    assert.equal(events.at(-1).payload, "final");
    assert.equal(events.at(-1).final.content, "You said: hello there");
  });

  test("gets a status with details that it can read", async () => {
    const error = await refusal(unary(client.sessions, "GetSession", { session_id: newId("ses") }));
    assert.equal(error.code, grpc.status.NOT_FOUND);
    assert.equal(error.details, "No such session.");
    const [packed] = error.metadata.get("grpc-status-details-bin");
    assert.match(String(packed), /RESOURCE_NOT_FOUND/);
  });

  test("is refused without a credential, and for a message that breaks a rule", async () => {
    const anonymous = await refusal(unary(client.sessions, "ListSessions", {}, new grpc.Metadata()));
    assert.equal(anonymous.code, grpc.status.UNAUTHENTICATED);
    const invalid = await refusal(unary(client.chat, "Chat", { message: "" }));
    assert.equal(invalid.code, grpc.status.INVALID_ARGUMENT);
  });

  test("has its deadline kept", async () => {
    const stream = client.chat.ChatStream({ message: "[[hang]] and then nothing more" }, metadata(), within(900));
    const error = await new Promise<grpc.ServiceError>((resolve) => stream.on("error", resolve).resume());
    assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
  });

  test("cancels in the middle of a stream, and the connection goes on", async () => {
    const { answer } = await unary(client.runs, "StartRun", { message: "[[slow 300]] [[deltas 60]] for long" });
    const stream = client.runs.StreamRunEvents({ run_id: answer.run.run_id }, metadata(), within());
    const ended = new Promise<grpc.ServiceError>((resolve) => stream.on("error", resolve));
    await new Promise((resolve) => stream.once("data", resolve));
    stream.cancel();
    assert.equal((await ended).code, grpc.status.CANCELLED);
    const seen = await unary(client.runs, "GetRun", { run_id: answer.run.run_id });
    assert.equal(seen.answer.run.state, "RUN_STATE_RUNNING");
    await unary(client.runs, "CancelRun", { run_id: answer.run.run_id });
  });
});

async function refusal(call: Promise<unknown>): Promise<grpc.ServiceError> {
  return call.then(
    () => assert.fail("was answered"),
    (error: grpc.ServiceError) => error,
  );
}
