import { connect } from "node:net";

/** Sends bytes as they are and reads until the server closes or `until` appears; for requests that no client would send. */
export function rawHttp(port: number, bytes: string | Buffer, until?: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
  let received = "";
  socket.setTimeout(10_000, () =>
    socket.destroy(new Error(`no answer in time; got ${JSON.stringify(received.slice(0, 200))}`)),
  );
  socket.on("data", (chunk) => {
    received += chunk.toString("latin1");
    if (until !== undefined && received.includes(until)) socket.destroy();
  });
  socket.on("error", reject);
  socket.on("close", () => resolve(received));
  return promise;
}
