import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import { PLATFORM_ADMIN, TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection } from "#platform/rpc/test-mesh.contract.ts";
import { rootSecret } from "#platform/secrets/root-secret.ts";
import { Secret } from "#platform/telemetry/secret.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs } from "#platform/testing/service-under-test.ts";
import { bootstrapAdminKey } from "./bootstrap-admin-key.ts";
import { formatApiKey, parseApiKey } from "./domain/api-key-format.ts";
import { createKeyDigester } from "./domain/key-digest.ts";
import { authDatabase, givenKey, openAuth, platformAdmin } from "./testing/auth-service.ts";

describe("bootstrap of the administrator's key", { skip: skipWithoutPostgres() }, () => {
  const root = rootSecret([randomBytes(32)]);
  const digester = createKeyDigester(root);
  let database: TestDatabase;
  let home: string;
  before(async () => {
    home = await mkdtemp(join(tmpdir(), "agentmesh-admin-key-"));
  });
  after(() => rm(home, { recursive: true, force: true }));
  beforeEach(async () => {
    database = await authDatabase();
  });
  afterEach(() => database.drop());

  const start = (options: { dataDir?: string; given?: string }) =>
    bootstrapAdminKey({
      database: database.db,
      digester,
      events: { adminKey: () => {} },
      dataDir: options.dataDir,
      given: options.given === undefined ? undefined : new Secret(options.given),
      signal: AbortSignal.timeout(10_000),
    });
  const dir = () => join(home, newId("dir"));
  const kept = async (dataDir: string) => (await readFile(join(dataDir, "admin-key"), "utf8")).trim();
  const admins = () =>
    database.db.tenant(FIRST_TENANT_ID, (tx) =>
      tx.query<{ id: string; origin: string; revoked: boolean }>(
        "SELECT api_key_id AS id, origin, revoked_at IS NOT NULL AS revoked FROM auth.api_keys ORDER BY created_at, api_key_id",
      ),
    );
  const idOf = (key: string) => parseApiKey(key)?.keyId;
  /** Whether a key verifies, over a service that shares the database and the root secret. */
  const scopesOf = async (key: string) => {
    await using auth = await openAuth({ database: database.db, root, adminKey: key });
    return (await auth.verify(key)).scopes;
  };

  test("a first start generates a key that may do everything, in a file that only its owner can read", async () => {
    const dataDir = dir();
    await start({ dataDir });
    const key = await kept(dataDir);
    assert.equal((await stat(join(dataDir, "admin-key"))).mode & 0o777, 0o600);
    assert.equal((await stat(dataDir)).mode & 0o777, 0o700);
    assert.deepEqual(await readdir(dataDir), ["admin-key"]);
    assert.deepEqual(await admins(), [{ id: idOf(key), origin: "generated", revoked: false }]);
    assert.deepEqual(await scopesOf(key), [...TENANT_SCOPES, PLATFORM_ADMIN]);
  });

  test("later starts keep the key", async () => {
    const dataDir = dir();
    await start({ dataDir });
    const key = await kept(dataDir);
    for (let i = 0; i < 2; i++) await start({ dataDir });
    assert.equal(await kept(dataDir), key);
    assert.equal((await admins()).length, 1);
  });

  test("processes that start together end up with one key, and the file holds it", async () => {
    const dataDir = dir();
    await Promise.all(Array.from({ length: 6 }, () => start({ dataDir })));
    assert.deepEqual(await admins(), [{ id: idOf(await kept(dataDir)), origin: "generated", revoked: false }]);
    assert.deepEqual(await readdir(dataDir), ["admin-key"]);
    await rm(join(dataDir, "admin-key"));
    await Promise.all(Array.from({ length: 6 }, () => start({ dataDir })));
    const second = idOf(await kept(dataDir));
    assert.deepEqual(
      (await admins()).map(({ id, revoked }) => [id === second, revoked]),
      [
        [false, true],
        [true, false],
      ],
    );
  });

  test("a lost or damaged file, or one of another database, gives a new key and revokes the old generated one", async () => {
    const dataDir = dir();
    await start({ dataDir });
    const first = await kept(dataDir);
    const damage = [
      () => rm(join(dataDir, "admin-key")),
      () => writeFile(join(dataDir, "admin-key"), first.slice(0, -1)),
      () => writeFile(join(dataDir, "admin-key"), `${givenKey()}\n`),
      () => writeFile(join(dataDir, "admin-key"), ""),
    ];
    const seen = [first];
    for (const act of damage) {
      await act();
      await start({ dataDir });
      const key = await kept(dataDir);
      assert.ok(!seen.includes(key));
      seen.push(key);
      const rows = await admins();
      assert.deepEqual(
        rows.filter(({ revoked }) => !revoked).map(({ id }) => id),
        [idOf(key)],
      );
      assert.equal(rows.length, seen.length);
    }
    await using auth = await openAuth({ database: database.db, root, adminKey: seen.at(-1) });
    for (const old of seen.slice(0, -1)) await assert.rejects(auth.verify(old));
  });

  test("a key that was revoked through the API is replaced at the next start", async () => {
    const dataDir = dir();
    await start({ dataDir });
    const first = await kept(dataDir);
    {
      await using auth = await openAuth({ database: database.db, root, adminKey: first });
      await auth.keys.revokeApiKey({ apiKeyId: idOf(first) as string }, callAs(platformAdmin));
    }
    await start({ dataDir });
    assert.notEqual(await kept(dataDir), first);
  });

  test("a start that cannot write the file leaves the key that was there in force", async () => {
    const dataDir = dir();
    await start({ dataDir });
    const first = await kept(dataDir);
    const blocked = join(home, newId("file"));
    await writeFile(blocked, "a file, not a folder");
    await chmod(blocked, 0o400);
    await assert.rejects(start({ dataDir: blocked }));
    assert.deepEqual(await admins(), [{ id: idOf(first), origin: "generated", revoked: false }]);
  });

  test("a given key is taken, stays over restarts, and takes the place of a generated one", async () => {
    const dataDir = dir();
    await start({ dataDir });
    const generated = await kept(dataDir);
    const given = givenKey();
    for (let i = 0; i < 2; i++) await start({ dataDir, given });
    assert.deepEqual(await admins(), [
      { id: idOf(generated), origin: "generated", revoked: true },
      { id: idOf(given), origin: "given", revoked: false },
    ]);
    assert.deepEqual(await readdir(dataDir), []);
    assert.deepEqual(await scopesOf(given), [...TENANT_SCOPES, PLATFORM_ADMIN]);
  });

  test("the generated key may be given as it is", async () => {
    const dataDir = dir();
    await start({ dataDir });
    const key = await kept(dataDir);
    await start({ dataDir, given: key });
    assert.deepEqual(await admins(), [{ id: idOf(key), origin: "generated", revoked: false }]);
    assert.equal(await kept(dataDir), key);
  });

  test("a given key with the id of a known one and another secret replaces that secret", async () => {
    const given = givenKey();
    await start({ given });
    const other = givenKey();
    const replaced = formatApiKey({ keyId: idOf(given) as string, secret: parseApiKey(other)?.secret as string });
    await start({ given: replaced });
    assert.equal((await admins()).length, 1);
    assert.ok((await scopesOf(replaced)).includes(PLATFORM_ADMIN));
    await using auth = await openAuth({ database: database.db, root, adminKey: replaced });
    await assert.rejects(auth.verify(given));
  });

  test("a given key that was revoked does not come back: the start fails and says so with a key to use", async () => {
    const given = givenKey();
    await start({ given });
    {
      await using auth = await openAuth({ database: database.db, root, adminKey: given });
      await auth.keys.revokeApiKey({ apiKeyId: idOf(given) as string }, callAs(platformAdmin));
    }
    const { message } = (await rejection(start({ given }))) as Error;
    assert.match(message, /AGENTMESH_ADMIN_KEY was revoked/);
    assert.ok(!message.includes(given));
    assert.notEqual(parseApiKey(message.slice(message.indexOf("am_live_"))), undefined);
  });

  test("a key that was created through the API is no administrator's key, whatever it may do", async () => {
    await using auth = await openAuth({ database: database.db, root });
    const { secret } = await auth.make(platformAdmin, { scopes: ["agents:run"] });
    await assert.rejects(start({ given: secret }), /created through the API/);
    assert.deepEqual((await auth.verify(secret)).scopes, ["agents:run"]);
  });

  test("without a place to keep a key and without a given one, the first start fails with a key to use, a later one does not", async () => {
    const { message } = (await rejection(start({}))) as Error;
    assert.match(message, /AGENTMESH_ADMIN_KEY is not set/);
    const suggested = message.slice(message.indexOf("am_live_"));
    await start({ given: suggested });
    await start({});
    assert.deepEqual(await admins(), [{ id: idOf(suggested), origin: "given", revoked: false }]);
  });

  test("an upgrade that knows more scopes gives them to the administrator's key, and to no other", async () => {
    const given = givenKey();
    await start({ given });
    await database.db.tenant(FIRST_TENANT_ID, (tx) => tx.execute("UPDATE auth.api_keys SET scopes = '{agents:run}'"));
    await using auth = await openAuth({ database: database.db, root, adminKey: given });
    const { secret } = await auth.make(platformAdmin, { scopes: ["agents:run"] });
    assert.deepEqual((await auth.verify(given)).scopes, [...TENANT_SCOPES, PLATFORM_ADMIN]);
    await start({ given });
    assert.deepEqual((await auth.verify(secret)).scopes, ["agents:run"]);
  });

  test("a tenant event that came before stays as it is", async () => {
    await database.db.tenant(FIRST_TENANT_ID, (tx) =>
      tx.execute("INSERT INTO auth.tenants VALUES ($1, 'suspended', 4)", [FIRST_TENANT_ID]),
    );
    await start({ given: givenKey() });
    const row = await database.db.tenant(FIRST_TENANT_ID, (tx) => tx.one("SELECT status, epoch FROM auth.tenants"));
    assert.deepEqual(row, { status: "suspended", epoch: 4 });
  });
});
