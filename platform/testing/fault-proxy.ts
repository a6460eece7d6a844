import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** Bytes that one direction of one connection may hold back before the proxy stops reading (then TCP pushes back). */
const heldBytes = 256 * 1024;

/** A TCP proxy on 127.0.0.1 that misbehaves on request. Faults apply to open and to future connections until {@link heal}. */
export interface FaultProxy extends AsyncDisposable {
  readonly host: "127.0.0.1";
  /** Where clients connect; stays the same through every fault. */
  readonly port: number;
  /** Client connections that are open now. */
  readonly connections: number;
  /** Every chunk arrives this much later, in both directions; chunks overlap, so throughput stays. */
  latency(ms: number): void;
  /** At most this many bytes per second in each direction of each connection. */
  rate(bytesPerSecond: number): void;
  /** Nothing passes and nothing is closed: as when packets are dropped. New connections are accepted and stay silent. */
  blackHole(): void;
  /** New connections are reset at once; open ones go on. */
  refuse(): void;
  /** Each open connection is closed (FIN) when exactly this many more bytes from its target have been passed on. */
  cutAfter(bytes: number): void;
  /** Closes every open connection in order (FIN both ways). */
  cut(): void;
  /** Resets every open connection (RST both ways). */
  reset(): void;
  /** The target is gone but the client is not told: its connection stays open, what it sends vanishes. */
  halfOpen(): void;
  /** Ends latency, rate, blackHole, refuse and cutAfter. What a black hole held arrives now, as retransmitted packets would. */
  heal(): void;
  close(): Promise<void>;
}

interface Faults {
  latencyMs: number;
  bytesPerSecond: number;
  silent: boolean;
  refusing: boolean;
}

const none: Faults = { latencyMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY, silent: false, refusing: false };

/** Starts a proxy in front of `target` on a free port. */
export async function createFaultProxy(target: { host?: string; port: number }): Promise<FaultProxy> {
  const faults: Faults = { ...none };
  const pairs = new Set<Pair>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    if (faults.refusing) {
      client.resetAndDestroy();
      return;
    }
    const pair = new Pair(
      client,
      connect({ host: target.host ?? "127.0.0.1", port: target.port, allowHalfOpen: true }),
      faults,
    );
    pairs.add(pair);
    client.once("close", () => pairs.delete(pair));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the proxy has no TCP address");
  const each = (act: (pair: Pair) => void) => {
    for (const pair of [...pairs]) act(pair);
  };
  const close = async () => {
    each((pair) => pair.destroy());
    if (server.listening) await new Promise((closed) => server.close(closed));
  };
  return {
    host: "127.0.0.1",
    port: address.port,
    get connections() {
      return pairs.size;
    },
    latency(ms) {
      faults.latencyMs = ms;
    },
    rate(bytesPerSecond) {
      faults.bytesPerSecond = bytesPerSecond;
    },
    blackHole() {
      faults.silent = true;
    },
    refuse() {
      faults.refusing = true;
    },
    cutAfter: (bytes) => each((pair) => pair.closeAfter(bytes)),
    cut: () => each((pair) => pair.end()),
    reset: () => each((pair) => pair.reset()),
    halfOpen: () => each((pair) => pair.loseTarget()),
    heal: () => {
      Object.assign(faults, none);
      each((pair) => pair.heal());
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** One client's connection and ours to the target for it. */
class Pair {
  /** Bytes from the target that may still pass before the connection is closed. */
  #cutAfter = Number.POSITIVE_INFINITY;
  readonly #client: Socket;
  readonly #target: Socket;
  readonly #faults: Faults;
  /** Pumps that wait in a black hole. */
  readonly #sleepers = new Set<() => void>();
  #lost = false;

  constructor(client: Socket, target: Socket, faults: Faults) {
    this.#client = client;
    this.#target = target;
    this.#faults = faults;
    for (const socket of [client, target]) socket.setNoDelay(true);
    // An error is always followed by "close", where the other side is told.
    client.on("error", () => {}).once("close", () => target.destroy());
    target.on("error", () => client.resetAndDestroy()).once("close", () => this.#lost || client.destroySoon());
    this.#pump(client, target);
    this.#pump(target, client);
  }

  closeAfter(bytes: number): void {
    this.#cutAfter = bytes;
  }

  loseTarget(): void {
    this.#lost = true;
    this.#target.destroy();
    this.#client.removeAllListeners("data").resume();
  }

  end(): void {
    this.#client.end();
    this.#target.end();
  }

  reset(): void {
    this.#client.resetAndDestroy();
    this.#target.resetAndDestroy();
  }

  destroy(): void {
    this.#client.destroy();
    this.#target.destroy();
  }

  heal(): void {
    this.#cutAfter = Number.POSITIVE_INFINITY;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#sleepers) wake();
    this.#sleepers.clear();
  }

  #pump(from: Socket, to: Socket): void {
    const queue: { chunk: Buffer | undefined; due: number }[] = [];
    let held = 0;
    let pumping = false;
    const run = async () => {
      if (pumping) return;
      pumping = true;
      for (let next = queue.shift(); next !== undefined && !to.destroyed; next = queue.shift()) {
        const wait = next.due - performance.now();
        if (wait > 0) await sleep(wait);
        while (this.#faults.silent && !to.destroyed) await new Promise<void>((wake) => this.#sleepers.add(wake));
        if (next.chunk === undefined) {
          to.end();
          break;
        }
        await this.#pass(next.chunk, to);
        held -= next.chunk.length;
        if (held < heldBytes) from.resume();
      }
      pumping = false;
    };
    const push = (chunk: Buffer | undefined) => {
      queue.push({ chunk, due: performance.now() + this.#faults.latencyMs });
      held += chunk?.length ?? 0;
      if (held >= heldBytes) from.pause();
      void run();
    };
    from.on("data", push).on("end", () => push(undefined));
    to.once("close", () => this.#wake());
  }

  async #pass(chunk: Buffer, to: Socket): Promise<void> {
    const rate = this.#faults.bytesPerSecond;
    // Ten slices a second keep a slow link slow from its first byte on.
    const slice = Math.max(1, Math.min(chunk.length, Math.floor(rate / 10)));
    for (let at = 0; at < chunk.length && !to.destroyed; at += slice) {
      const wanted = chunk.subarray(at, at + slice);
      const bytes = to === this.#client ? wanted.subarray(0, this.#cutAfter) : wanted;
      if (!to.write(bytes)) await writable(to);
      if (to === this.#client) this.#cutAfter -= bytes.length;
      if (this.#cutAfter <= 0) {
        to.destroySoon();
        return;
      }
      if (Number.isFinite(rate)) await sleep((bytes.length / rate) * 1_000);
    }
  }
}

/** Resolves when the socket takes more bytes, or is closed. */
async function writable(socket: Socket): Promise<void> {
  const done = new AbortController();
  const { signal } = done;
  await Promise.race([once(socket, "drain", { signal }), once(socket, "close", { signal })]).catch(() => {});
  done.abort();
}
