import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, connect, constants } from "node:http2";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openPort, PORT_LIMITS } from "#platform/rpc/port.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { SERVICE_PORT } from "./service-port.ts";

/** More than the edge lets anybody hold or reset at once. */
const CALLERS = 3_000;

describe("the port of a service", () => {
  test("serves a peer whose callers all leave at once: who stays is answered", async () => {
    assert.ok(CALLERS > PORT_LIMITS.maxConcurrentStreams && CALLERS > PORT_LIMITS.streamResetBurst);
    let asked = 0;
    let end = () => {};
    const port = await openPort({
      host: "127.0.0.1",
      port: 0,
      limits: SERVICE_PORT,
      listener(request, response) {
        asked += 1;
        if (request.url === "/stays") end = () => void response.end("done");
      },
    });
    const session = connect(`http://127.0.0.1:${port.port}`);
    session.setMaxListeners(0);
    try {
      await once(session, "remoteSettings");
      const stays = session.request({ ":path": "/stays" });
      const answered = once(stays, "response");
      const leaving = Array.from({ length: CALLERS }, () => call(session));
      await until(() => asked === CALLERS + 1, "all of them");
      for (const stream of leaving) stream.close(constants.NGHTTP2_CANCEL);
      await Promise.all(leaving.map((stream) => once(stream, "close")));
      await sleep(100);
      assert.equal(session.destroyed, false);
      end();
      const [headers] = await answered;
      assert.equal(headers[":status"], 200);
      stays.resume();
      await once(stays, "close");
    } finally {
      session.destroy();
      await port.close(1_000);
    }
  });
});

function call(session: ClientHttp2Session) {
  const stream = session.request({ ":path": "/" });
  stream.on("error", () => {});
  return stream;
}
