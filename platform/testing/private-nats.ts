import { randomBytes } from "node:crypto";
import { connect } from "nats";
import { type OwnServer, startOwnServer } from "./own-server.ts";
import { SharedResource } from "./shared-resource.ts";

/** A part of a NATS server with JetStream that no other test uses; `createBus` takes the three fields as they are. */
export interface PrivateNats extends AsyncDisposable {
  readonly url: string;
  /** The name of this test's stream; deleted at the end. */
  readonly stream: string;
  /** Put before every subject, so that streams of several tests do not overlap. */
  readonly prefix: string;
}

/** A NATS server that this test alone uses: kill, freeze and start it again on the same port and store. */
export interface OwnNats extends PrivateNats, OwnServer {}

/** The environment variable by which the test runner hands in the URL of a server that it started. */
export const natsUrlVariable = "AGENTMESH_TEST_NATS";

/**
 * A private NATS for a test: the server that the test runner started, else one that this process starts on a free port
 * of 127.0.0.1 and stops when the last holder disposes of it. With `own` a server of its own, for fault tests; `args`
 * are added to its command line (`["--auth", token]`). Throws `MissingServer` when nats-server is not installed.
 */
export async function privateNats(options: { own: true; args?: readonly string[] }): Promise<OwnNats>;
export async function privateNats(options?: { own?: false }): Promise<PrivateNats>;
export async function privateNats(options?: { own?: boolean; args?: readonly string[] }): Promise<PrivateNats> {
  const token = randomBytes(8).toString("hex");
  const names = { stream: `T_${token}`, prefix: `t${token}.` };
  if (options?.own) {
    const server = await startNats(options.args ?? []);
    return Object.assign(server, { url: urlOf(server), ...names });
  }
  const given = process.env[natsUrlVariable];
  const url = given || urlOf(await shared.hold());
  const dispose = async () => {
    await deleteStream(url, names.stream);
    if (!given) await shared.release();
  };
  return { url, ...names, [Symbol.asyncDispose]: dispose };
}

const shared = new SharedResource(
  () => startNats([]),
  (server) => server.stop(),
);

function startNats(more: readonly string[]): Promise<OwnServer> {
  return startOwnServer({
    server: "nats-server",
    args: (folder, port) => ["-a", "127.0.0.1", "-p", String(port), "-js", "-sd", folder, ...more],
    greeting: { expect: /^INFO .*"jetstream":true/ },
  });
}

function urlOf(server: OwnServer): string {
  return `nats://${server.host}:${server.port}`;
}

async function deleteStream(url: string, stream: string): Promise<void> {
  const connection = await connect({ servers: url, reconnect: false });
  try {
    const manager = await connection.jetstreamManager({ checkAPI: false });
    await manager.streams.delete(stream).catch((error: { code?: string }) => {
      if (error.code !== "404") throw error;
    });
  } finally {
    await connection.close();
  }
}
