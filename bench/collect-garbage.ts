/** The address that Node prints on standard error when it is started with --inspect. */
const LISTENING = /^Debugger listening on (ws:\/\/\S+)/;

/**
 * Makes a process that was started with `--inspect` collect its garbage, so that its resident memory is what it holds.
 *
 * @param output what it has printed
 */
export async function collectGarbage(output: readonly string[]): Promise<void> {
  const address = output.map((line) => LISTENING.exec(line)?.[1]).find((found) => found !== undefined);
  if (address === undefined) throw new Error("the process has no inspector");
  const socket = new WebSocket(address);
  try {
    await event(socket, "open");
    // What the first collection finalises is freed by the second.
    for (const id of [1, 2]) {
      const answered = event(socket, "message");
      socket.send(JSON.stringify({ id, method: "HeapProfiler.collectGarbage" }));
      await answered;
    }
  } finally {
    socket.close();
  }
}

function event(socket: WebSocket, name: "open" | "message"): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.addEventListener(name, () => resolve(), { once: true });
  socket.addEventListener("error", () => reject(new Error("the inspector does not answer")), { once: true });
  return promise;
}
