import type { Database } from "#platform/postgres/database.ts";
import { Secret } from "#platform/telemetry/secret.ts";
import { readAdminKey, removeAdminKey, writeAdminKey } from "./admin-key-file.ts";
import { formatApiKey, parseApiKey } from "./domain/api-key-format.ts";
import type { KeyDigester } from "./domain/key-digest.ts";
import { newApiKey } from "./domain/new-api-key.ts";
import type { AuthEvents } from "./events.ts";
import { type AdminKeys, withAdminKeys } from "./store/admin-key-store.ts";

export interface AdminKeyOptions {
  readonly database: Database;
  readonly digester: KeyDigester;
  readonly events: Pick<AuthEvents, "adminKey">;
  /** AGENTMESH_ADMIN_KEY; its form has been checked. */
  readonly given: Secret<string> | undefined;
  /** Where a key is generated and kept when none is given; undefined when nothing may be kept on this machine. */
  readonly dataDir: string | undefined;
  readonly signal: AbortSignal;
}

/**
 * Makes sure that the first tenant has its administrator's key: all tenant scopes and `platform:admin`.
 *
 * A given key is taken; a generated one that it replaces is revoked. Without one, the key in `<dataDir>/admin-key` stays
 * when the database knows it; else (a first start, a lost file, another database) a new one is generated, written there,
 * and takes the place of what was generated before. Without a place to keep one, some administrator's key must exist.
 * Replicas take turns, so that those which start together end up with one key. Throws an error for the operator.
 */
export async function bootstrapAdminKey(options: AdminKeyOptions): Promise<void> {
  const { database, given, dataDir, signal } = options;
  await withAdminKeys(database, signal, async (keys) => {
    if (given !== undefined) return takeGiven(keys, given, options);
    if (dataDir !== undefined) return keepOrGenerate(keys, dataDir, options);
    if (await keys.anyAdmin()) return;
    throw new Error(`AGENTMESH_ADMIN_KEY is not set, and there is no administrator's key yet. ${suggestion()}`);
  });
}

/** For messages to the operator: a key that would do. It is known to nobody else and works nowhere before it is set. */
export function suggestion(): string {
  return `This one was made for you: ${formatApiKey(newApiKey())}`;
}

async function takeGiven(keys: AdminKeys, given: Secret<string>, options: AdminKeyOptions): Promise<void> {
  const { digester, events, dataDir } = options;
  const parts = parseApiKey(given.reveal());
  if (parts === undefined) throw new Error(`AGENTMESH_ADMIN_KEY has not the form of an API key. ${suggestion()}`);
  const known = await keys.find(parts.keyId);
  if (known?.revoked) {
    throw new Error(`AGENTMESH_ADMIN_KEY was revoked and does not come back by itself. ${suggestion()}`);
  }
  if (known?.origin === "call") {
    throw new Error(`AGENTMESH_ADMIN_KEY is a key that was created through the API. ${suggestion()}`);
  }
  if (known === undefined) await keys.add(parts, digester.digest(parts), "given");
  else if (!digester.matches(parts, known)) await keys.setDigest(parts.keyId, digester.digest(parts));
  await keys.revokeGenerated(parts.keyId);
  if (dataDir !== undefined && known?.origin !== "generated") await removeAdminKey(dataDir);
  events.adminKey(known === undefined ? "given" : "kept", parts.keyId);
}

async function keepOrGenerate(keys: AdminKeys, dataDir: string, options: AdminKeyOptions): Promise<void> {
  const { digester, events } = options;
  const kept = parseApiKey((await readAdminKey(dataDir))?.reveal() ?? "");
  const known = kept && (await keys.find(kept.keyId));
  if (kept !== undefined && known?.origin === "generated" && !known.revoked && digester.matches(kept, known)) {
    return events.adminKey("kept", kept.keyId);
  }
  const fresh = newApiKey();
  await keys.revokeGenerated();
  await keys.add(fresh, digester.digest(fresh), "generated");
  // Written before the commit: a crash in between leaves a file that the database does not know, and the next start
  // makes another key. The other way round it would leave a key that nobody has.
  await writeAdminKey(dataDir, new Secret(formatApiKey(fresh)));
  events.adminKey("generated", fresh.keyId);
}
