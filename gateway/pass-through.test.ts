import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { DescService } from "@bufbuild/protobuf";
import {
  type Client,
  Code,
  ConnectError,
  createClient,
  type HandlerContext,
  type Transport,
} from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { ErrorInfoSchema, RequestInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { callOf } from "#platform/rpc/call.ts";
import { consume } from "#platform/rpc/consume.ts";
import { notFound, reasonOf } from "#platform/rpc/errors.ts";
import { CARRIERS, rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { KEY, openTestGateway, TENANT, type TestGateway } from "./testing/test-gateway.ts";

interface Seen {
  timeoutMs: number | undefined;
  header: Headers;
  tenantId: string;
  released: boolean;
  made: number;
}

const faces: Readonly<Record<string, (baseUrl: string) => Transport>> = {
  "Connect, HTTP/1.1": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect, HTTP/2": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" }),
  "Connect, JSON": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "Connect, GET": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true }),
  "gRPC-Web, HTTP/1.1": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  gRPC: (baseUrl) => createGrpcTransport({ baseUrl }),
};

for (const carrier of CARRIERS) {
  describe(`the pass-through, services over ${carrier}`, () => {
    let edge: TestGateway;
    let seen: Seen;

    const learn = (context: HandlerContext) => {
      const { principal } = callOf(context);
      seen = {
        timeoutMs: context.timeoutMs(),
        header: context.requestHeader,
        tenantId: principal.tenantId,
        released: false,
        made: 0,
      };
    };

    before(async () => {
      edge = await openTestGateway({
        carrier,
        services: [ChatService, SessionService, RunTailService],
        routes: (router) => {
          router.service(SessionService, {
            getSession: ({ sessionId }, context) => {
              learn(context);
              if (sessionId === "missing") throw notFound("session");
              context.responseHeader.set("location", "/l");
              context.responseHeader.set("x-private", "no");
              return { session: { sessionId, createTime: { seconds: 5n } } };
            },
          });
          router.service(ChatService, {
            chat: (_request, context) => {
              learn(context);
              return { response: "done" };
            },
            async *chatStream({ message }, context) {
              learn(context);
              context.responseHeader.set("location", "/api/v1/runs/run_1/events:stream");
              try {
                for (let seq = 1; seq <= 1000; seq += 1) {
                  seen.made = seq;
                  const content = message === "flood" ? "x".repeat(65_536) : message;
                  yield { event: { seq: BigInt(seq), payload: { case: "text", value: { content } } } };
                  if (message === "three" && seq === 3) return;
                  if (message === "fail" && seq === 2) throw notFound("session");
                  if (message === "wait") {
                    await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
                  }
                }
              } finally {
                seen.released = true;
              }
            },
          });
          router.service(RunTailService, { cancelOwnedRun: () => ({ terminalSeq: 1n }) });
        },
      });
    });
    after(() => edge[Symbol.asyncDispose]());

    for (const [face, transport] of Object.entries(faces)) {
      describe(face, () => {
        const client = <S extends DescService>(service: S): Client<S> => createClient(service, transport(edge.url));
        const headers = { authorization: `Bearer ${KEY}` };

        test("hands a call on with the caller's principal and none of its headers", async () => {
          const given = { ...headers, "x-tenant-id": "ten_other", "agentmesh-client-ip": "6.6.6.6", "x-user": "u" };
          let location: string | null = null;
          let hidden: string | null = null;
          const { session } = await client(SessionService).getSession(
            { sessionId: "ses_1" },
            {
              headers: given,
              onHeader: (header) => {
                location = header.get("location");
                hidden = header.get("x-private");
              },
            },
          );
          assert.equal(session?.sessionId, "ses_1");
          assert.equal(session?.createTime?.seconds, 5n);
          assert.deepEqual([location, hidden], ["/l", null]);
          assert.equal(seen.tenantId, TENANT);
          assert.equal(seen.header.get("x-tenant-id"), null);
          assert.equal(seen.header.get("x-user"), null);
          assert.equal(seen.header.get("agentmesh-client-ip"), "127.0.0.1");
        });

        test("hands an error back with its details", async () => {
          const error = await rejection(client(SessionService).getSession({ sessionId: "missing" }, { headers }));
          assert.ok(error instanceof ConnectError);
          assert.equal(error.code, Code.NotFound);
          assert.deepEqual(error.findDetails(ErrorInfoSchema)[0]?.metadata, { resource_type: "session" });
          assert.notEqual(error.findDetails(RequestInfoSchema)[0]?.requestId, "");
        });

        test("gives a call the default deadline of its method, or the caller's", async () => {
          await client(SessionService).getSession({ sessionId: "s" }, { headers });
          assert.ok((seen.timeoutMs ?? 0) > 25_000 && (seen.timeoutMs ?? 0) <= 30_000, String(seen.timeoutMs));
          await client(ChatService).chat({ message: "x" }, { headers });
          assert.ok((seen.timeoutMs ?? 0) > 600_000 && (seen.timeoutMs ?? 0) <= 630_000, String(seen.timeoutMs));
          await client(ChatService).chat({ message: "x" }, { headers, timeoutMs: 2_000 });
          assert.ok((seen.timeoutMs ?? 0) <= 2_000, String(seen.timeoutMs));
          for await (const _frame of client(ChatService).chatStream({ message: "three" }, { headers })) {
            assert.equal(seen.timeoutMs, undefined, "a stream ends with its run");
          }
        });

        test("streams message by message, with the headers of the service", async () => {
          let location: string | null = null;
          const onHeader = (header: Headers) => {
            location = header.get("location");
          };
          const seqs: bigint[] = [];
          for await (const { event } of client(ChatService).chatStream({ message: "three" }, { headers, onHeader })) {
            seqs.push(event?.seq ?? 0n);
          }
          assert.deepEqual(seqs, [1n, 2n, 3n]);
          assert.equal(location, "/api/v1/runs/run_1/events:stream");
        });

        test("hands an error in a stream back after the messages, with its details", async () => {
          const seqs: bigint[] = [];
          const error = await rejection(
            (async () => {
              for await (const { event } of client(ChatService).chatStream({ message: "fail" }, { headers })) {
                seqs.push(event?.seq ?? 0n);
              }
            })(),
          );
          assert.deepEqual(seqs, [1n, 2n]);
          assert.equal(reasonOf(error), "RESOURCE_NOT_FOUND");
        });

        test("ends the service's stream when the client leaves", async () => {
          for await (const _frame of consume((signal) =>
            client(ChatService).chatStream({ message: "wait" }, { headers, signal }),
          )) {
            break;
          }
          await until(() => seen.released, "the release of the handler");
        });

        test("refuses a caller without a credential, and one with a wrong one, before the service hears of it", async () => {
          for (const [given, reason] of [
            [{}, "CREDENTIAL_MISSING"],
            [{ authorization: "Bearer am_live_other" }, "CREDENTIAL_INVALID"],
            [{ authorization: `Basic ${KEY}` }, "CREDENTIAL_INVALID"],
          ] as const) {
            const error = await rejection(client(SessionService).getSession({ sessionId: "s" }, { headers: given }));
            assert.equal((error as ConnectError).code, Code.Unauthenticated);
            assert.equal(reasonOf(error), reason);
          }
        });

        test("takes the key from X-API-Key, too", async () => {
          await client(SessionService).getSession({ sessionId: "s" }, { headers: { "x-api-key": KEY } });
        });

        test("does not have the methods between services", async () => {
          const error = await rejection(client(RunTailService).cancelOwnedRun({ runId: "r" }, { headers }));
          assert.ok([Code.Unimplemented, Code.NotFound].includes((error as ConnectError).code), String(error));
        });

        test("shows health and its public services without a credential", async () => {
          assert.equal((await client(Health).check({})).status, 1);
          assert.equal((await client(Health).check({ service: ChatService.typeName })).status, 1);
          const unknown = await rejection(client(Health).check({ service: "nope" }));
          assert.equal((unknown as ConnectError).code, Code.NotFound);
        });
      });
    }

    for (const face of ["Connect, HTTP/2", "gRPC"] as const) {
      test(`a reader that pauses pauses the service (${face})`, async () => {
        const chat = createClient(ChatService, (faces[face] as (baseUrl: string) => Transport)(edge.url));
        const controller = new AbortController();
        const stream = chat.chatStream(
          { message: "flood" },
          { headers: { authorization: `Bearer ${KEY}` }, signal: controller.signal },
        );
        await stream[Symbol.asyncIterator]().next();
        let before = -1;
        while (before !== seen.made) {
          before = seen.made;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        assert.ok(seen.made < 200, `${seen.made} messages of 64 KiB were made`);
        controller.abort();
        await until(() => seen.released, "the release of the handler");
      });
    }

    test("grpc-js gets through, with status details, and reflection lists the services", async () => {
      const raw = new grpc.Client(`127.0.0.1:${edge.port}`, grpc.credentials.createInsecure());
      const call = (metadata: grpc.Metadata) =>
        new Promise<grpc.ServiceError | Buffer>((resolve) => {
          const same = (bytes: Buffer) => bytes;
          raw.makeUnaryRequest(
            "/agentmesh.agent.v1.SessionService/GetSession",
            same,
            same,
            Buffer.from([0x0a, 1, 0x73]),
            metadata,
            (error, value) => resolve(error ?? (value as Buffer)),
          );
        });
      const metadata = new grpc.Metadata();
      const refused = (await call(metadata)) as grpc.ServiceError;
      assert.equal(refused.code, grpc.status.UNAUTHENTICATED);
      assert.ok(refused.metadata.get("grpc-status-details-bin").length > 0);
      metadata.set("authorization", `Bearer ${KEY}`);
      assert.ok(Buffer.isBuffer(await call(metadata)));
      raw.close();

      const reflection = createClient(ServerReflection, createGrpcTransport({ baseUrl: edge.url }));
      async function* ask() {
        yield { messageRequest: { case: "listServices" as const, value: "" } };
      }
      for await (const { messageResponse } of reflection.serverReflectionInfo(ask())) {
        assert.equal(messageResponse.case, "listServicesResponse");
        const names =
          messageResponse.case === "listServicesResponse" ? messageResponse.value.service.map(({ name }) => name) : [];
        assert.ok(names.includes("agentmesh.agent.v1.ChatService"), names.join());
      }
    });
  });
}
