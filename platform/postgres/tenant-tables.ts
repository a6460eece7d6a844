import assert from "node:assert/strict";
import type { Database } from "./database.ts";

export interface TenantTableOptions {
  /** Unique indexes (`schema.index`) that are meant to hold across tenants, such as an index of credentials by their hash. */
  globalUnique?: readonly string[];
  /** Fewest tables that must be found, so that a check of nothing fails. Default 1. */
  atLeast?: number;
}

/**
 * For a test over all services: reads the catalog and throws an AssertionError that lists every table with a tenant_id
 * column which is not well protected: tenant_id in the primary key, in every unique index and in foreign keys to other
 * such tables, forced row-level security, a policy per command for agentmesh_app that compares with the current tenant,
 * no policy that shows all tenants to anyone but agentmesh_worker, no view that reads with its owner's rights. Returns
 * the tables that were checked, as `schema.table`.
 */
export async function assertTenantTablesProtected(db: Database, options: TenantTableOptions = {}): Promise<string[]> {
  const { globalUnique = [], atLeast = 1 } = options;
  const [tables, faults] = await db.worker(
    async (tx) =>
      [
        await tx.query<{ name: string }>(findTables),
        await tx.query<{ fault: string }>(findFaults, [globalUnique]),
      ] as const,
    { readOnly: true },
  );
  assert.deepEqual(
    faults.map(({ fault }) => fault),
    [],
    "tenant tables that are not well protected",
  );
  assert.ok(tables.length >= atLeast, `only ${tables.length} tenant tables were found`);
  return tables.map(({ name }) => name);
}

const tenantTables = `
  tenant_table AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, a.attnum, c.relrowsecurity, c.relforcerowsecurity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema)'
  )`;

const findTables = `WITH ${tenantTables} SELECT name FROM tenant_table ORDER BY name`;

const findFaults = `
  WITH ${tenantTables},
  policy AS (
    SELECT t.name, p.polname, p.polcmd, coalesce(pg_get_expr(p.polqual, p.polrelid), '') AS shows,
      coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '') AS takes, p.polpermissive,
      ARRAY(SELECT coalesce(rolname, 'public') FROM unnest(p.polroles) r LEFT JOIN pg_roles ON pg_roles.oid = r)::text[] AS roles
    FROM pg_policy p JOIN tenant_table t ON t.oid = p.polrelid
  ),
  fault AS (
    SELECT name || ': row-level security is not enabled and forced' AS fault FROM tenant_table WHERE NOT (relrowsecurity AND relforcerowsecurity)
    UNION ALL
    SELECT name || ': tenant_id is not in the primary key' FROM tenant_table t
    WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = t.oid AND indisprimary AND t.attnum = ANY (indkey))
    UNION ALL
    SELECT format('%s: unique index %s spans tenants', t.name, i.indexrelid::regclass)
    FROM tenant_table t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class ic ON ic.oid = i.indexrelid
    WHERE i.indisunique AND NOT t.attnum = ANY (i.indkey::int2[])
      AND NOT ic.relnamespace::regnamespace::text || '.' || ic.relname = ANY ($1::text[])
    UNION ALL
    SELECT format('%s: no policy of agentmesh_app for %s that compares with the current tenant', t.name, c.word)
    FROM tenant_table t CROSS JOIN (VALUES ('r', 'SELECT'), ('a', 'INSERT'), ('w', 'UPDATE'), ('d', 'DELETE')) c (cmd, word)
    WHERE NOT EXISTS (
      SELECT FROM policy p WHERE p.name = t.name AND p.polpermissive AND p.roles = ARRAY['agentmesh_app'] AND p.polcmd::text IN (c.cmd, '*')
        AND (c.cmd = 'a' OR p.shows LIKE '%tenant_id = %current_tenant()%')
        AND (c.cmd NOT IN ('a', 'w') OR p.takes LIKE '%tenant_id = %current_tenant()%'))
    UNION ALL
    SELECT format('%s: policy %s is not bound to the current tenant, and not for agentmesh_worker alone', name, polname)
    FROM policy WHERE polpermissive AND roles <> ARRAY['agentmesh_worker']
      AND NOT ((polcmd = 'a' OR shows LIKE '%tenant_id = %current_tenant()%') AND (polcmd NOT IN ('a', 'w', '*') OR takes LIKE '%tenant_id = %current_tenant()%'))
    UNION ALL
    SELECT format('%s: no check on the form of tenant_id', t.name) FROM tenant_table t
    WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = t.oid AND k.contype = 'c' AND k.convalidated
      AND pg_get_constraintdef(k.oid) LIKE '%tenant_id ~ ''^ten\\_%')
    UNION ALL
    SELECT format('%s: foreign key %s does not carry tenant_id to tenant_id', t.name, k.conname)
    FROM tenant_table t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f' JOIN tenant_table target ON target.oid = k.confrelid
    WHERE NOT EXISTS (SELECT FROM unnest(k.conkey, k.confkey) pair (here, there) WHERE here = t.attnum AND there = target.attnum)
    UNION ALL
    SELECT format('%s: view %s reads it with its owner''s rights (security_invoker is off)', t.name, v.oid::regclass)
    FROM tenant_table t JOIN pg_depend d ON d.refobjid = t.oid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
    WHERE v.relkind = 'm' OR NOT coalesce(v.reloptions::text[] && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false)
    GROUP BY t.name, v.oid
  )
  SELECT fault FROM fault ORDER BY fault`;
