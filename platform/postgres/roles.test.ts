import assert from "node:assert/strict";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import pg from "pg";
import { startPostgres } from "#platform/testing/postgres-server.ts";
import { skipWithoutPostgres, type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import { assertRoles } from "./roles.ts";
import { assertTenantTablesProtected } from "./tenant-tables.ts";

const services = [{ schema: "notes", dir: join(import.meta.dirname, "fixtures/notes") }];

describe("checks of what guards tenants", { skip: skipWithoutPostgres() }, () => {
  let t: TestDatabase;
  beforeEach(async () => {
    t = await testDatabase({ services });
  });
  afterEach(() => t.drop());

  async function given(sql: string, check: () => Promise<unknown>, database = t): Promise<void> {
    const client = new pg.Client({ connectionString: database.superuserUrl });
    await client.connect();
    try {
      await client.query(sql);
      await check();
    } finally {
      await client.end();
    }
  }

  describe("roles", () => {
    test("pass as the migrations make them", async () => {
      assert.deepEqual(await assertRoles(t.db), { loginMayBypass: false });
    });

    test("a superuser's login is reported, not refused", async () => {
      assert.deepEqual(await assertRoles(t.open({ connection: { url: t.superuserUrl } })), { loginMayBypass: true });
    });

    const refused = (message: RegExp) => () => assert.rejects(assertRoles(t.db), { name: "UnsafeRoles", message });

    test("a role that may bypass row-level security, itself or as a member of one that may, is refused", async () => {
      await using own = await testDatabase({ services, server: await startPostgres() });
      const refusedThere = (message: RegExp) => () =>
        assert.rejects(assertRoles(own.db), { name: "UnsafeRoles", message });
      await given(
        "ALTER ROLE agentmesh_app BYPASSRLS",
        refusedThere(/^agentmesh_app may bypass row-level security$/),
        own,
      );
      await given("ALTER ROLE agentmesh_app SUPERUSER", refusedThere(/^agentmesh_app is a superuser$/), own);
      await given("ALTER ROLE agentmesh_app NOBYPASSRLS NOSUPERUSER", () => assertRoles(own.db), own);
      const member =
        "CREATE ROLE inner_role BYPASSRLS; CREATE ROLE outer_role; GRANT inner_role TO outer_role; GRANT outer_role TO agentmesh_worker";
      await given(member, refusedThere(/^agentmesh_worker is a member of inner_role, which may bypass/), own);
    });

    test("a role that owns tenant tables, or may act as their owner, is refused", async () => {
      await given(
        "ALTER TABLE notes.note OWNER TO agentmesh_app",
        refused(/agentmesh_app may act as the owner of tenant table notes\.note/),
      );
    });

    test("a tenant table that the roles reach without forced row-level security is refused", async () => {
      await given(
        "ALTER TABLE notes.note NO FORCE ROW LEVEL SECURITY",
        refused(/may reach notes\.note, which has no forced/),
      );
      await given(
        "ALTER TABLE notes.note FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY",
        refused(/notes\.note/),
      );
    });
  });

  describe("tenant tables", () => {
    const faults =
      (...expected: RegExp[]) =>
      async () => {
        await assert.rejects(assertTenantTablesProtected(t.db), (error: assert.AssertionError) => {
          const found = error.actual as string[];
          for (const fault of expected)
            assert.ok(
              found.some((line) => fault.test(line)),
              `${fault} is not in\n${found.join("\n")}`,
            );
          assert.equal(found.length, expected.length, found.join("\n"));
          return true;
        });
      };

    test("pass as protect makes them, and are all looked at", async () => {
      assert.deepEqual(await assertTenantTablesProtected(t.db), [
        "notes.audit",
        "notes.comment",
        "notes.job",
        "notes.note",
        "notes.outbox",
      ]);
    });

    test("finding fewer than expected fails", async () => {
      await assert.rejects(assertTenantTablesProtected(t.db, { atLeast: 6 }), /only 5 tenant tables/);
    });

    const cases: [string, string, ...RegExp[]][] = [
      [
        "a table that nobody protected",
        "CREATE TABLE notes.bare (tenant_id text, id text PRIMARY KEY)",
        /bare: row-level/,
        /bare: tenant_id is not in the primary key/,
        /bare: unique index notes.bare_pkey/,
        /bare: no check/,
        /SELECT/,
        /INSERT/,
        /UPDATE/,
        /DELETE/,
      ],
      [
        "row-level security that is not forced",
        "ALTER TABLE notes.note NO FORCE ROW LEVEL SECURITY",
        /note: row-level security is not enabled and forced/,
      ],
      ["a missing policy", "DROP POLICY tenant_delete ON notes.note", /note: no policy of agentmesh_app for DELETE/],
      [
        "a policy that shows everything to the app",
        "CREATE POLICY wide ON notes.note FOR SELECT TO agentmesh_app USING (true)",
        /note: policy wide is not bound/,
      ],
      [
        "a policy for everybody",
        "CREATE POLICY wide ON notes.note FOR INSERT WITH CHECK (true)",
        /note: policy wide is not bound/,
      ],
      [
        "a unique index across tenants",
        "CREATE UNIQUE INDEX bodies ON notes.note (body)",
        /note: unique index notes.bodies spans tenants/,
      ],
      [
        "a foreign key that does not carry the tenant",
        "CREATE UNIQUE INDEX ids ON notes.note (id, tenant_id); ALTER TABLE notes.comment ADD other text, ADD CONSTRAINT cross_tenant FOREIGN KEY (other, note_id) REFERENCES notes.note (tenant_id, id)",
        /comment: foreign key cross_tenant/,
      ],
      [
        "a view with its owner's rights",
        "CREATE VIEW notes.all_notes AS SELECT * FROM notes.note",
        /note: view notes.all_notes/,
      ],
      [
        "a missing check on the tenant id's form",
        "ALTER TABLE notes.note DROP CONSTRAINT tenant_id_form",
        /note: no check on the form/,
      ],
    ];
    for (const [what, sql, ...expected] of cases) {
      test(`${what} is found`, () => given(sql, faults(...expected)));
    }

    test("a view with the caller's rights and a listed index across tenants pass", async () => {
      const sql =
        "CREATE VIEW notes.mine WITH (security_invoker = true) AS SELECT * FROM notes.note; CREATE UNIQUE INDEX by_secret ON notes.job (secret, id)";
      await given(sql, () => assertTenantTablesProtected(t.db, { globalUnique: ["notes.by_secret"] }));
    });
  });
});
