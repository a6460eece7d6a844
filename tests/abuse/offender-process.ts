// node offender-process.ts <attack> <port>: SIGUSR2 begins the attack, and the next one ends it and drops all
// connections. After SIGTERM it prints how often it was cut.
import { connect, type Socket } from "node:net";
import { constants, setPriority } from "node:os";
import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { ATTACKS, type Attack } from "./attacks.ts";
import { PREFACE, settings } from "./frames.ts";

const CONNECTIONS = 2;
/** An offender comes back, as fast as a real one could over a network. */
const BACK_AFTER_MS = 50;
/** Not the address of those who behave: who keeps coming back is refused by address. */
const OFFENDER = "127.0.0.2";
const RESET_FRAME = 3;
const GOAWAY_FRAME = 7;

const [name = "", port = ""] = process.argv.slice(2);
const attack = ATTACKS[name];
if (attack === undefined) throw new Error(`no attack is called ${name}`);
// A real one has processors of its own; here it shall take none from those whose latency is measured.
setPriority(constants.priority.PRIORITY_LOW);

let cuts = 0;
let attacking = false;
const sockets = new Set<Socket>();
process.on("SIGUSR2", () => {
  attacking = !attacking;
  if (!attacking) for (const socket of sockets) socket.destroy();
});
process.once("SIGTERM", () => {
  process.stdout.write(`cut ${cuts}\n`);
  process.exit(0);
});
process.stdout.write("ready\n");
await Promise.all(Array.from({ length: CONNECTIONS }, () => offend(attack)));

/** One connection after the other. What counts as a cut: the connection is closed, or its streams are reset. */
async function offend(one: Attack): Promise<never> {
  for (;;) {
    if (!attacking) {
      await sleep(1);
      continue;
    }
    const socket = connect({ port: Number(port), host: "127.0.0.1", localAddress: OFFENDER });
    sockets.add(socket);
    socket.on("error", () => {});
    let isCut = false;
    socket.on("data", (chunk: Buffer) => {
      isCut ||= [...frameTypes(chunk)].some((type) => type === RESET_FRAME || type === GOAWAY_FRAME);
    });
    await either(socket, "connect");
    socket.write(Buffer.concat([PREFACE, one.settings ?? settings()]));
    for (let round = 0; !socket.destroyed && !(isCut && one.pauseMs !== undefined); round++) {
      const room = socket.write(one.piece(round));
      if (one.pauseMs !== undefined) await sleep(one.pauseMs);
      else if (!room) await either(socket, "drain");
      else await turn();
    }
    socket.destroy();
    sockets.delete(socket);
    if (attacking) cuts += 1;
    await sleep(BACK_AFTER_MS);
  }
}

/** Waits for the event or the end of the socket. */
async function either(socket: Socket, event: string): Promise<void> {
  if (socket.destroyed) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.once(event, resolve).once("close", resolve);
  await promise;
  socket.off(event, resolve).off("close", resolve);
}

/** The types of the frames that begin in a chunk that begins with a frame; enough for the few that a slow one gets. */
function* frameTypes(chunk: Buffer): Generator<number> {
  for (let at = 0; at + 9 <= chunk.length; at += 9 + chunk.readUIntBE(at, 3)) yield chunk[at + 3] ?? 0;
}
