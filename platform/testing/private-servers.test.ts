import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, test } from "node:test";
import { Redis } from "ioredis";
import { connect } from "nats";
import { MissingServer, serverProgram, skipWithout } from "./missing-server.ts";
import { privateNats } from "./private-nats.ts";
import { privateRedis } from "./private-redis.ts";

describe("private servers", () => {
  test("a server that is not installed is a MissingServer with the line that installs it", () => {
    const name = "redis-server-that-nobody-has" as "redis-server";
    assert.throws(() => serverProgram(name), MissingServer);
    assert.match(new MissingServer("nats-server").aptLine, /^apt-get install .*nats-server$/);
    assert.match(String(skipWithout(name)), /not installed/);
    process.env["AGENTMESH_TEST_PROBE"] = "redis://127.0.0.1:1";
    assert.equal(skipWithout(name, "AGENTMESH_TEST_PROBE"), false);
    delete process.env["AGENTMESH_TEST_PROBE"];
  });

  test("Redis: holders share one server and differ in prefix", { skip: skipWithout("redis-server") }, async () => {
    await using a = await privateRedis();
    await using b = await privateRedis();
    assert.equal(a.url, b.url);
    assert.notEqual(a.prefix, b.prefix);
    const redis = new Redis(a.url);
    assert.equal(await redis.ping(), "PONG");
    redis.disconnect();
  });

  test("Redis: an own server is another one, comes back on its port, and leaves nothing", {
    skip: skipWithout("redis-server"),
  }, async () => {
    await using shared = await privateRedis();
    const own = await privateRedis({ own: true });
    assert.notEqual(own.url, shared.url);
    const { pid, port } = own;
    await own.kill();
    assert.throws(() => process.kill(pid!, 0), { code: "ESRCH" });
    await own.start();
    assert.equal(own.port, port);
    const redis = new Redis(own.url);
    assert.equal(await redis.ping(), "PONG");
    redis.disconnect();
    await own.stop();
    assert.throws(() => process.kill(own.pid!, 0), { code: "ESRCH" });
    assert.equal(existsSync(own.folder), false);
  });

  test("NATS: a disposed part leaves no stream on the shared server", {
    skip: skipWithout("nats-server"),
  }, async () => {
    await using other = await privateNats();
    const part = await privateNats();
    const connection = await connect({ servers: part.url });
    const manager = await connection.jetstreamManager();
    await manager.streams.add({ name: part.stream, subjects: [`${part.prefix}>`] });
    await part[Symbol.asyncDispose]();
    await assert.rejects(manager.streams.info(part.stream), { code: "404" });
    assert.equal(other.url, part.url);
    await connection.close();
  });

  test("NATS: an own server keeps its store over a kill", { skip: skipWithout("nats-server") }, async () => {
    await using own = await privateNats({ own: true });
    const write = await connect({ servers: own.url, reconnect: false });
    const manager = await write.jetstreamManager();
    await manager.streams.add({ name: own.stream, subjects: [`${own.prefix}>`] });
    await write.jetstream().publish(`${own.prefix}a`);
    await own.kill();
    await own.start();
    const read = await connect({ servers: own.url, reconnect: false });
    const { state } = await (await read.jetstreamManager()).streams.info(own.stream);
    assert.equal(state.messages, 1);
    await read.close();
    await write.close();
  });
});
