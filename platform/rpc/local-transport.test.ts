import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { create, createFileRegistry, type MessageInitShape } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createLocalTransport } from "./local-transport.ts";
import { openPort, type Port } from "./port.ts";
import { adapt, rejection } from "./test-mesh.contract.ts";

/** Methods of every kind, from StringValue to StringValue. */
const KINDS = [
  { name: "Unary" },
  { name: "Down", serverStreaming: true },
  { name: "Up", clientStreaming: true },
  { name: "Both", clientStreaming: true, serverStreaming: true },
].map((kind) => ({ ...kind, inputType: ".google.protobuf.StringValue", outputType: ".google.protobuf.StringValue" }));

const registry = createFileRegistry(
  create(FileDescriptorProtoSchema, {
    name: "kinds.proto",
    package: "test",
    syntax: "proto3",
    dependency: ["google/protobuf/wrappers.proto"],
    service: [{ name: "Kinds", method: KINDS }],
  }),
  () => StringValueSchema.file,
);
const Kinds = registry.getService("test.Kinds") ?? assert.fail();

type Text = MessageInitShape<typeof StringValueSchema>;
type Texts = AsyncIterable<{ value: string }>;

const LIMITS = { readMaxBytes: 100, writeMaxBytes: 1_000 };
const repeated = (value: string) => ({ value: "x".repeat(Number(value)) });

/** Answers with as many characters as it is asked for. */
function routes(router: ConnectRouter): void {
  router.service(Kinds, {
    unary: ({ value }: { value: string }) => repeated(value),
    async *down({ value }: { value: string }) {
      yield repeated("1");
      yield repeated(value);
    },
    async up(texts: Texts) {
      let sum = 0;
      for await (const { value } of texts) sum += Number(value.trim());
      return repeated(String(sum));
    },
    async *both(texts: Texts) {
      for await (const { value } of texts) yield repeated(value.trim());
    },
  } as never);
}

interface KindsClient {
  unary(text: Text): Promise<{ value: string }>;
  down(text: Text): Texts;
  up(texts: AsyncIterable<Text>): Promise<{ value: string }>;
  both(texts: AsyncIterable<Text>): Texts;
}

async function* each(...values: string[]): AsyncGenerator<Text> {
  for (const value of values) yield { value };
}

const lengths = async (texts: Texts) => (await Array.fromAsync(texts)).map(({ value }) => value.length);

let port: Port;
const transports = new Map<string, Transport>();
before(async () => {
  port = await openPort({ host: "127.0.0.1", port: 0, listener: adapt(routes, LIMITS) });
  transports.set("memory", createLocalTransport(routes, LIMITS));
  transports.set("grpc", createGrpcTransport({ baseUrl: `http://127.0.0.1:${port.port}` }));
});
after(() => port.close(50));

for (const carrier of ["memory", "grpc"]) {
  describe(`methods of every kind over ${carrier}`, () => {
    const client = () => createClient(Kinds, transports.get(carrier) ?? assert.fail()) as unknown as KindsClient;
    const refusal = async (promise: Promise<unknown>) => {
      const error = await rejection(promise);
      assert.ok(error instanceof ConnectError);
      return Code[error.code];
    };

    test("are called and answer", async () => {
      assert.equal((await client().unary({ value: "3" })).value, "xxx");
      assert.deepEqual(await lengths(client().down({ value: "7" })), [1, 7]);
      assert.equal((await client().up(each("1", "2", "3"))).value.length, 6);
      assert.deepEqual(await lengths(client().both(each("4", "5"))), [4, 5]);
    });

    test("refuse a message above the limit of requests, and one of answers above theirs", async () => {
      const fits = LIMITS.readMaxBytes - 2;
      const long = " ".repeat(fits + 1);
      assert.equal((await client().up(each(" ".repeat(fits), "2"))).value.length, 2);
      for (const [name, refused] of Object.entries({
        unary: () => client().unary({ value: long }),
        down: () => lengths(client().down({ value: long })),
        up: () => client().up(each("1", long)),
        both: () => lengths(client().both(each("1", long))),
      })) {
        assert.equal(await refusal(refused()), "ResourceExhausted", `request of ${name}`);
      }
      assert.deepEqual(await lengths(client().down({ value: "997" })), [1, 997]);
      for (const [name, refused] of Object.entries({
        unary: () => client().unary({ value: "998" }),
        down: () => lengths(client().down({ value: "998" })),
        up: () => client().up(each("900", "98")),
        both: () => lengths(client().both(each("998"))),
      })) {
        assert.equal(await refusal(refused()), "ResourceExhausted", `answer of ${name}`);
      }
    });

    test("fail as their caller's stream of messages does", async () => {
      async function* broken(): AsyncGenerator<Text> {
        yield { value: "1" };
        throw new ConnectError("no more", Code.DataLoss);
      }
      assert.equal(await refusal(client().up(broken())), "DataLoss");
      assert.equal(await refusal(lengths(client().both(broken()))), "DataLoss");
    });
  });
}

describe("a local transport", () => {
  test("says UNIMPLEMENTED of a method that nobody mounted", async () => {
    const nobody = createClient(
      Kinds,
      createLocalTransport(() => {}, {}),
    ) as unknown as KindsClient;
    for (const ask of [() => nobody.unary({ value: "1" }), () => lengths(nobody.down({ value: "1" }))]) {
      assert.equal(((await rejection(ask())) as ConnectError).code, Code.Unimplemented);
    }
  });

  test("ends the calls that come after its shutdown with the shutdown's reason", async () => {
    const reason = new ConnectError("closing", Code.Unavailable);
    const transport = createLocalTransport(
      (router) =>
        void router.service(Kinds, {
          unary: (_: unknown, { signal }: { signal: AbortSignal }) => {
            signal.throwIfAborted();
            return {};
          },
        } as never),
      { shutdownSignal: AbortSignal.abort(reason) },
    );
    const client = createClient(Kinds, transport) as unknown as KindsClient;
    assert.equal(((await rejection(client.unary({ value: "1" }))) as ConnectError).code, Code.Unavailable);
  });
});
