import { randomBytes } from "node:crypto";
import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import { rootSecret } from "../../secrets/root-secret.ts";
import { createHopSigner, createHopVerifier } from "../hop-token.ts";
import { createLinks, type Links } from "../links.ts";
import { openPort, type Port } from "../port.ts";
import { deriveServiceKeys } from "../service-keys.ts";
import { createServicePipeline } from "../service-pipeline.ts";
import { adapt, RecordedCalls } from "../test-mesh.contract.ts";
import type { BalanceOptions } from "./balanced-transport.ts";

const CALLEE = "callee";

/** Replicas of one module, each with the service pipeline on a port of its own, and a link to all of them. */
export interface TestReplicas extends AsyncDisposable {
  readonly links: Links;
  /** Base URLs. */
  readonly addresses: readonly string[];
  /** Calls that each replica began. */
  begun(): number[];
  /** Closes a replica's port at once, as when its process dies. */
  kill(index: number): Promise<void>;
  /** Opens it again at the same address. */
  revive(index: number): Promise<void>;
}

export async function openTestReplicas(
  count: number,
  routes: (router: ConnectRouter, index: number) => void,
  balance: BalanceOptions = {},
  addressOf: (addresses: readonly string[]) => string = (addresses) => addresses.join(","),
): Promise<TestReplicas> {
  const keys = deriveServiceKeys(rootSecret([randomBytes(32)]), ["edge", CALLEE]);
  const calls = Array.from({ length: count }, () => new RecordedCalls());
  const open = (index: number, port: number) =>
    openPort({
      host: "127.0.0.1",
      port,
      listener: adapt(
        (router) => routes(router, index),
        createServicePipeline({
          verifier: createHopVerifier([CALLEE], keys),
          observation: calls[index] as RecordedCalls,
        }),
      ),
    });
  const ports: Port[] = [];
  for (let index = 0; index < count; index++) ports.push(await open(index, 0));
  const numbers = ports.map(({ port }) => port);
  const addresses = numbers.map((port) => `http://127.0.0.1:${port}`);
  const links = createLinks({
    caller: "edge",
    signer: createHopSigner("edge", keys),
    moduleOf: (_: DescService) => CALLEE,
    local: () => undefined,
    address: () => addressOf(addresses),
    ownAddress: "",
    injectTrace: () => {},
    balance,
  });
  return {
    links,
    addresses,
    begun: () => calls.map(({ begun }) => begun),
    kill: async (index) => ports[index]?.close(0),
    async revive(index) {
      ports[index] = await open(index, numbers[index] as number);
    },
    async [Symbol.asyncDispose]() {
      await links.close();
      await Promise.all(ports.map((port) => port.close(0)));
    },
  };
}
