import { randomBytes } from "node:crypto";
import { type OwnServer, startOwnServer } from "./own-server.ts";
import { SharedResource } from "./shared-resource.ts";

/** A part of a Redis server that no other test uses: put {@link prefix} before every key. */
export interface PrivateRedis extends AsyncDisposable {
  readonly url: string;
  readonly prefix: string;
}

/** A Redis server that this test alone uses: kill, freeze, flush and start it again as you like. */
export interface OwnRedis extends PrivateRedis, OwnServer {}

/** The environment variable by which the test runner hands in the URL of a server that it started. */
export const redisUrlVariable = "AGENTMESH_TEST_REDIS";

/**
 * A private Redis for a test: the server that the test runner started, else one that this process starts on a free port
 * of 127.0.0.1 and stops when the last holder disposes of it. With `own` a server of its own, for fault tests.
 * Nothing is written to disk. Throws `MissingServer` when redis-server is not installed.
 */
export async function privateRedis(options: { own: true }): Promise<OwnRedis>;
export async function privateRedis(options?: { own?: false }): Promise<PrivateRedis>;
export async function privateRedis(options?: { own?: boolean }): Promise<PrivateRedis> {
  const prefix = `t${randomBytes(8).toString("hex")}:`;
  if (options?.own) {
    const server = await startRedis();
    return Object.assign(server, { url: urlOf(server), prefix });
  }
  const given = process.env[redisUrlVariable];
  if (given) return { url: given, prefix, [Symbol.asyncDispose]: async () => {} };
  const server = await shared.hold();
  return { url: urlOf(server), prefix, [Symbol.asyncDispose]: () => shared.release() };
}

const shared = new SharedResource(startRedis, (server) => server.stop());

function startRedis(): Promise<OwnServer> {
  return startOwnServer({
    server: "redis-server",
    args: (folder, port) =>
      ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"].concat(
        ["--dir", folder],
        // DEBUG is how a test makes the server slow.
        ["--enable-debug-command", "local"],
      ),
    greeting: { send: "PING\r\n", expect: /^\+PONG/ },
  });
}

function urlOf(server: OwnServer): string {
  return `redis://${server.host}:${server.port}`;
}
