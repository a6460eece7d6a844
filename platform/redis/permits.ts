/** A permit that is wanted. */
export interface PermitRequest {
  /** Whose permits they are. */
  readonly tenantId: string;
  /** Who will hold it: unique over all processes, 1 to 200 characters. Asking again for a holder that has one renews it. */
  readonly holder: string;
  /** Most permits of the tenant that are held at once; a whole number from 0. */
  readonly limit: number;
  /** How long the permit is held without being renewed, in milliseconds. */
  readonly leaseMs: number;
  /** How many processes ask; each has its part of the limit while Redis cannot be asked. Default 1. */
  readonly replicas?: number;
}

export interface PermitAnswer {
  readonly granted: boolean;
  /** Permits of the tenant that are held now, this one included. */
  readonly held: number;
  /** Where it was decided: for all processes, or, while Redis cannot be asked, for this one. */
  readonly by: "all" | "this process";
}

/**
 * Permits to do something at the same time as others, counted per tenant over all processes. They are leases: a holder
 * that dies, or that is forgotten, gives its permit back when the lease ends. Nothing here rejects because a server is
 * away, or waits for one longer than its command timeout; a RangeError for figures that make no sense.
 */
export interface Permits extends AsyncDisposable {
  acquire(request: PermitRequest): Promise<PermitAnswer>;
  /** Extends the leases of holders that have a permit; one that Redis forgot is entered again, for its holder still works. */
  renew(tenantId: string, holders: readonly string[], leaseMs: number): Promise<void>;
  release(tenantId: string, holder: string): Promise<void>;
  /** Permits of a tenant that are held now. */
  held(tenantId: string): Promise<number>;
  close(): Promise<void>;
}

/** Throws a RangeError for figures that make no sense. */
export function checkPermit({ tenantId, holder, limit, leaseMs, replicas = 1 }: PermitRequest): void {
  if (!/^[\w-]{1,100}$/.test(tenantId)) throw new RangeError("that is no tenant");
  if (holder.length < 1 || holder.length > 200) throw new RangeError("a holder has 1 to 200 characters");
  if (!Number.isSafeInteger(limit) || limit < 0) throw new RangeError("the limit has to be a whole number from 0");
  if (!Number.isSafeInteger(leaseMs) || leaseMs < 1)
    throw new RangeError("the lease has to be whole milliseconds from 1");
  if (!Number.isSafeInteger(replicas) || replicas < 1) throw new RangeError("there is one process at least");
}
