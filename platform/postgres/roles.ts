import type { Database } from "./database.ts";

/** What the boot check found that is allowed but worth a warning. */
export interface RoleReport {
  /** The login is a superuser or may bypass row-level security when it leaves its role; fine for trying out only. */
  loginMayBypass: boolean;
}

/** The roles of a database would let a service see another tenant's rows. */
export class UnsafeRoles extends Error {
  override readonly name = "UnsafeRoles";
}

/**
 * Boot check. Throws {@link UnsafeRoles} when agentmesh_app or agentmesh_worker could get round row-level security: as a
 * superuser, by BYPASSRLS, by owning a tenant table (or the role that owns one), by being a member of such a role, or
 * because row-level security is not in force on a tenant table.
 */
export async function assertRoles(db: Database, options: { signal?: AbortSignal } = {}): Promise<RoleReport> {
  return db.worker(
    async (tx) => {
      const faults = await tx.query<{ role: string; fault: string }>(findFaults);
      if (faults.length > 0) throw new UnsafeRoles(faults.map(({ role, fault }) => `${role} ${fault}`).join("; "));
      const login = await tx.one<{ bypass: boolean }>(
        "SELECT rolsuper OR rolbypassrls AS bypass FROM pg_roles WHERE rolname = session_user",
      );
      return { loginMayBypass: login?.bypass ?? true };
    },
    { readOnly: true, ...options },
  );
}

const findFaults = `
  WITH RECURSIVE ours AS (SELECT oid, rolname FROM pg_roles WHERE rolname IN ('agentmesh_app', 'agentmesh_worker')),
  member_of AS (
    SELECT oid AS member, oid AS role FROM ours
    UNION SELECT o.member, m.roleid FROM member_of o JOIN pg_auth_members m ON m.member = o.role
  ),
  tenant_tables AS (
    SELECT c.oid, c.relowner, c.relrowsecurity AND c.relforcerowsecurity AS protected
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
  )
  SELECT o.rolname AS role, CASE WHEN r.oid = o.oid THEN '' ELSE 'is a member of ' || r.rolname || ', which ' END
    || CASE WHEN r.rolsuper THEN 'is a superuser' ELSE 'may bypass row-level security' END AS fault
  FROM ours o JOIN pg_roles r ON (r.rolsuper OR r.rolbypassrls) AND o.oid IN (SELECT member FROM member_of WHERE role = r.oid)
  UNION ALL
  SELECT o.rolname, format('may act as the owner of tenant table %s', t.oid::regclass)
  FROM ours o JOIN tenant_tables t ON pg_has_role(o.oid, t.relowner, 'MEMBER')
  WHERE NOT (SELECT rolsuper FROM pg_roles WHERE oid = o.oid)
  UNION ALL
  SELECT o.rolname, format('may reach %s, which has no forced row-level security', t.oid::regclass)
  FROM ours o JOIN tenant_tables t ON NOT t.protected
    AND (has_any_column_privilege(o.oid, t.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(o.oid, t.oid, 'DELETE, TRUNCATE'))
  WHERE NOT (SELECT rolsuper FROM pg_roles WHERE oid = o.oid)
  ORDER BY 1, 2`;
