import { equals } from "@bufbuild/protobuf";
import type {
  CreateTenantResponseSchema,
  DeleteTenantRequest,
  DeleteTenantResponseSchema,
  ListTenantsRequest,
  Tenant,
  TenantSchema,
  UpdateTenantRequest,
  UpdateTenantResponseSchema,
} from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { newId } from "#platform/id.ts";
import type { Once } from "#platform/postgres/answer-once.ts";
import type { Call } from "#platform/rpc/call.ts";
import { etagMismatch, invalidFields, notFound, raise } from "#platform/rpc/errors.ts";
import { isPlatformAdmin } from "#platform/rpc/principal.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import type { TenantChoice } from "#platform/tenancy/resolve-tenant.ts";
import { firstTenantNeeded, platformFields } from "../errors.ts";
import type { ChangeKind, ConfigEvents } from "../events.ts";
import type { ConfigStore } from "../store/config-store.ts";
import { nextPageToken, pageAsked } from "./page.ts";
import { ACTIVE, checkTenant, DELETED, FREE, PLATFORM_FIELDS, SUSPENDED, TENANT_MASK } from "./tenant-rules.ts";
import { applyMask } from "./update-mask.ts";

export interface TenantsDeps {
  readonly store: ConfigStore;
  readonly pageTokens: PageTokens;
  readonly events: ConfigEvents;
  readonly schema: typeof TenantSchema;
  /** Resolves when no process serves what was resolved before. */
  invalidate(tenantId: string): Promise<void>;
}

/** The tenants of the installation. */
export class Tenants {
  readonly #deps: TenantsDeps;

  constructor(deps: TenantsDeps) {
    this.#deps = deps;
  }

  /** The tenant and its default agent, together or not at all. */
  async create(
    call: Call,
    asked: Tenant | undefined,
    once: Once<typeof CreateTenantResponseSchema>,
  ): Promise<{ tenant: Tenant }> {
    const { store, events } = this.#deps;
    if (asked === undefined) throw invalidFields({ field: "tenant", description: "is required" });
    if (asked.tenantId !== "")
      throw invalidFields({ field: "tenant.tenant_id", description: "is chosen by the server" });
    const tenant = { ...asked, tier: asked.tier || FREE, status: asked.status || ACTIVE };
    checkTenant(tenant);
    const tenantId = once.requestId === "" ? newId("ten") : await store.newTenantId(call, once);
    return store.write(call, tenantId, async (unit) => {
      if (await unit.addTenant(tenant)) {
        await unit.addDefaultAgent();
        await unit.audit("tenant.created", tenantId, { name: tenant.name, tier: tenant.tier });
        events.tenantChanged("created", tenantId);
      }
      return { tenant: (await unit.tenant()) ?? raise(notFound("tenant")) };
    });
  }

  /** A deleted tenant is still shown, to platform administrators. */
  get(call: Call, choice: TenantChoice): Promise<Tenant> {
    return this.#deps.store.read(
      call,
      choice,
      "tenant.read",
      async (unit) => (await unit.tenant()) ?? raise(notFound("tenant")),
    );
  }

  async list(call: Call, request: ListTenantsRequest) {
    const { store, pageTokens } = this.#deps;
    const statuses = request.status === 0 ? [ACTIVE, SUSPENDED] : [request.status];
    const list = { tenant: call.principal.tenantId, filter: ["ListTenants", ...statuses] };
    const page = await store.listTenants(call, pageAsked(pageTokens, list, request), statuses);
    return { tenants: page.items, nextPageToken: nextPageToken(pageTokens, list, page, (tenant) => tenant.tenantId) };
  }

  update(
    call: Call,
    { tenantId }: TenantChoice,
    { tenant: asked, updateMask }: UpdateTenantRequest,
    once: Once<typeof UpdateTenantResponseSchema>,
  ) {
    if (asked === undefined) throw invalidFields({ field: "tenant", description: "is required" });
    return this.#changing(tenantId, "updated", (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        const current = living(await unit.tenant("lock"));
        if (asked.etag !== "" && asked.etag !== current.etag) throw etagMismatch();
        const { next, fields } = applyMask(this.#deps.schema, current, asked, updateMask, TENANT_MASK);
        const replacesAll = updateMask?.paths.includes("*") === true;
        // An enum has no value for "none": replacing all without stating them leaves them as they are.
        if (replacesAll && next.tier === 0) next.tier = current.tier;
        if (replacesAll && next.status === 0) next.status = current.status;
        if (!isPlatformAdmin(call.principal)) this.#refusePlatformFields(current, next, fields, replacesAll);
        if (fields.size === 0) return { tenant: current };
        checkTenant(next, fields);
        if (tenantId === FIRST_TENANT_ID && next.status !== ACTIVE) throw firstTenantNeeded();
        const saved = await unit.saveTenant(next);
        note();
        await unit.audit("tenant.updated", tenantId, { fields: [...fields] });
        return { tenant: saved };
      }),
    );
  }

  delete(
    call: Call,
    { tenantId }: TenantChoice,
    { etag }: DeleteTenantRequest,
    once: Once<typeof DeleteTenantResponseSchema>,
  ) {
    return this.#changing(tenantId, "deleted", (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        const current = living(await unit.tenant("lock"));
        if (etag !== "" && etag !== current.etag) throw etagMismatch();
        if (tenantId === FIRST_TENANT_ID) throw firstTenantNeeded();
        await unit.saveTenant({ ...current, status: DELETED });
        note();
        await unit.audit("tenant.deleted", tenantId, { name: current.name });
        return {};
      }),
    );
  }

  /** Naming such a field needs `platform:admin`; replacing all needs it only where that would change one. */
  #refusePlatformFields(current: Tenant, next: Tenant, fields: ReadonlySet<string>, replacesAll: boolean): void {
    const same = (field: (typeof PLATFORM_FIELDS)[number]) =>
      equals(this.#deps.schema, current, { ...current, [field]: next[field] });
    const refused = PLATFORM_FIELDS.filter((field) => fields.has(field) && !(replacesAll && same(field)));
    if (refused.length > 0) throw platformFields(refused);
  }

  /** Invalidates after a change and before its answer, so that nobody who has the answer is served the old state. */
  async #changing<T>(tenantId: string, kind: ChangeKind, change: (note: () => void) => Promise<T>): Promise<T> {
    let changed = false;
    const answer = await change(() => {
      changed = true;
    });
    if (!changed) return answer;
    await this.#deps.invalidate(tenantId);
    this.#deps.events.tenantChanged(kind, tenantId);
    return answer;
  }
}

function living(tenant: Tenant | undefined): Tenant {
  if (tenant === undefined || tenant.status === DELETED) throw notFound("tenant");
  return tenant;
}
