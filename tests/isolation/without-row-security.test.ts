import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { inspect } from "node:util";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { createActors } from "./actors.ts";
import { probeAll } from "./campaign.ts";
import { openDoors } from "./doors.ts";
import { type MeshOfTwo, startMeshOfTwo } from "./mesh-of-two.ts";
import { plantRows } from "./plant-rows.ts";
import { asSuperuser, protectedTables, withRowSecurityOff } from "./row-security.ts";

/** Tables whose rows are gone as soon as they are published. */
const EMPTY_AT_REST = /\.outbox$/;

describe("each of the two layers that keep tenants apart holds alone", { skip: skipWithoutPostgres() }, () => {
  let mesh: MeshOfTwo;
  before(async () => {
    mesh = await startMeshOfTwo();
  });
  after(() => mesh?.[Symbol.asyncDispose]());

  test("the services' own checks, with row-level security off", { timeout: 240_000 }, async (t) => {
    const { doors, close } = openDoors(mesh);
    try {
      const { probes, leaks } = await withRowSecurityOff(mesh.database, () => probeAll(mesh, doors));
      t.diagnostic(`isolation probes without row-level security ${probes}, leaks ${leaks.length}`);
      assert.deepEqual(leaks.slice(0, 3), [], `${leaks.length} leaks`);
      assert.ok(probes >= 2_000, `only ${probes} probes`);
    } finally {
      await close();
    }
  });

  test("row-level security, with statements that check nothing", async (t) => {
    const { victim, strangerMachine } = await createActors(mesh);
    const [theirs, own] = [victim.principal.tenantId, strangerMachine.principal.tenantId];
    const tables = await protectedTables(mesh.database);
    await plantRows(
      mesh.database,
      theirs,
      tables.filter((table) => !EMPTY_AT_REST.test(table)),
    );
    let statements = 0;
    /** Rows that the statement reached as the attacker's tenant; one that is refused reached none. */
    const reached = async (sql: string, params: unknown[]) => {
      statements++;
      const outcome = mesh.database.db.tenant(own, async (tx) => {
        const count = await tx.execute(sql, params);
        throw new RolledBack(count);
      });
      return outcome.catch((error: unknown) => {
        if (error instanceof RolledBack) return error.rows;
        // Any other error would mean that the statement was never tried.
        assert.match(inspect(error), /row-level security|permission denied/, sql);
        return 0;
      });
    };
    for (const table of tables) {
      const rows = await asSuperuser(
        mesh.database,
        `SELECT to_jsonb(t) AS row FROM ${table} t WHERE tenant_id = $1 LIMIT 3`,
        [theirs],
      );
      assert.ok(rows.length > 0 || EMPTY_AT_REST.test(table), `${table} has no row of the victim's to reach for`);
      assert.equal(await reached(`SELECT FROM ${table} WHERE tenant_id = $1`, [theirs]), 0, `read ${table}`);
      assert.equal(await reached(`SELECT FROM ${table} WHERE tenant_id <> $1`, [own]), 0, `read all of ${table}`);
      assert.equal(await reached(`DELETE FROM ${table} WHERE tenant_id = $1`, [theirs]), 0, `delete from ${table}`);
      const touch = `UPDATE ${table} SET tenant_id = tenant_id WHERE tenant_id = $1`;
      assert.equal(await reached(touch, [theirs]), 0, `change ${table}`);
      const give = `UPDATE ${table} SET tenant_id = $1 WHERE tenant_id = $2`;
      assert.equal(await reached(give, [theirs, own]), 0, `give away rows of ${table}`);
      for (const { row } of rows) {
        const values = JSON.stringify(row);
        const copy = `INSERT INTO ${table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_record(NULL::${table}, $1::jsonb)`;
        assert.equal(await reached(copy, [values]), 0, `insert into ${table} for the victim`);
        const again = `${copy} ON CONFLICT DO NOTHING`;
        assert.equal(await reached(again, [values]), 0, `insert into ${table} beside the victim's`);
      }
    }
    t.diagnostic(`row-level security alone: ${tables.length} tables, ${statements} statements, rows reached 0`);
    assert.ok(tables.length >= 15 && statements >= 100, `${tables.length} tables, ${statements} statements`);
  });

  test("a statement of that kind does reach the attacker's own rows", async () => {
    const { strangerMachine } = await createActors(mesh);
    const { tenantId } = strangerMachine.principal;
    const sql = "UPDATE agent.sessions SET tenant_id = tenant_id WHERE tenant_id = $1";
    assert.ok((await mesh.database.db.tenant(tenantId, (tx) => tx.execute(sql, [tenantId]))) > 0);
  });
});

/** Ends the transaction, so that a statement which should reach nothing spoils nothing if it does. */
class RolledBack extends Error {
  readonly rows: number;

  constructor(rows: number) {
    super("rolled back");
    this.rows = rows;
  }
}
