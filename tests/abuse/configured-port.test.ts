import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Settings } from "node:http2";
import { test } from "node:test";
import { startMesh } from "#tests/e2e/mesh-under-test.ts";

test("a mesh serves its port with the limits of its configuration", { timeout: 60_000 }, async () => {
  const mesh = await startMesh("embedded", { AGENTMESH_GATEWAY__PORT__STREAMS: "7" });
  try {
    const session = connect(mesh.baseUrl);
    const [settings] = (await once(session, "remoteSettings")) as [Settings];
    assert.equal(settings.maxConcurrentStreams, 7);
    session.destroy();
  } finally {
    await mesh.stop();
  }
});
