import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Execution } from "./history.ts";

/** The world outside of the mesh, on which tools act: it remembers every execution. */
export interface SideEffects extends AsyncDisposable {
  readonly url: string;
  readonly executions: readonly Execution[];
}

export async function startSideEffects(): Promise<SideEffects> {
  const executions: Execution[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return; // whoever acted died while it told of it: it has not acted
    }
    executions.push(JSON.parse(Buffer.concat(chunks).toString()) as Execution);
    response.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    executions,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
