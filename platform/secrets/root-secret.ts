import { hkdfSync, randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileOnce } from "./file-once.ts";

/** A key for one purpose. `id` names the root secret that it comes from; it is not secret. */
export interface DerivedKey {
  /** 4 bytes. */
  readonly id: Buffer;
  readonly key: Buffer;
}

/** The secret that every other key of an installation comes from. The secret itself never leaves it. */
export interface RootSecret {
  /** The key to protect new things with: HKDF-SHA256 (RFC 5869), 32 bytes unless told otherwise. */
  derive(purpose: string, length?: number): DerivedKey;
  /** The keys to read with, current first: after a rotation the previous secrets' too. */
  deriveAll(purpose: string, length?: number): readonly DerivedKey[];
}

export interface RootSecretSource {
  /** AGENTMESH_SECRET: 32 bytes in base64. */
  secret?: string | undefined;
  /** AGENTMESH_SECRET_PREVIOUS: secrets that were current, separated by commas; only read with. */
  previous?: string | undefined;
  /** Where a secret is kept (file `secret`, mode 0600), made at the first start, when `secret` is not given. */
  dataDir?: string | undefined;
}

/** Loads the root secret. Throws with what to do when there is none or one is malformed; the message never quotes it. */
export async function loadRootSecret({ secret, previous, dataDir }: RootSecretSource): Promise<RootSecret> {
  if (!secret && dataDir === undefined) throw new Error(`AGENTMESH_SECRET is not set. ${howToMakeOne}`);
  const current = secret ? parse(secret, "AGENTMESH_SECRET") : await secretFile(dataDir ?? "");
  const earlier = (previous ?? "").split(",").filter((text) => text.trim() !== "");
  return rootSecret([current, ...earlier.map((text) => parse(text, "AGENTMESH_SECRET_PREVIOUS"))]);
}

/** A root secret from its bytes, current first; for {@link loadRootSecret} and tests. */
export function rootSecret(secrets: readonly Uint8Array[]): RootSecret {
  const roots = secrets.map((secret) => ({ id: derive(secret, "key id", 4), secret }));
  const [current] = roots;
  if (current === undefined) throw new Error("a root secret needs at least one secret");
  return {
    derive: (purpose, length = 32) => ({ id: current.id, key: derive(current.secret, purpose, length) }),
    deriveAll: (purpose, length = 32) => roots.map(({ id, secret }) => ({ id, key: derive(secret, purpose, length) })),
  };
}

const size = 32;
const howToMakeOne = `It is ${size} random bytes in base64; make one with: openssl rand -base64 ${size}`;

function derive(secret: Uint8Array, purpose: string, length: number): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, "agentmesh", purpose, length));
}

function parse(text: string, name: string): Buffer {
  const trimmed = text.trim();
  const bytes = Buffer.from(trimmed, "base64");
  const isBase64 = /^[A-Za-z0-9+/_-]+={0,2}$/.test(trimmed);
  if (!isBase64 || bytes.length !== size) throw new Error(`${name} is malformed. ${howToMakeOne}`);
  // 32 random bytes have fewer than 12 different values once in 10^24 times; something typed by hand has.
  if (new Set(bytes).size < 12) throw new Error(`${name} is not random. ${howToMakeOne}`);
  return bytes;
}

async function secretFile(dataDir: string): Promise<Buffer> {
  const path = join(dataDir, "secret");
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  return parse(await fileOnce(path, () => `${randomBytes(size).toString("base64")}\n`), path);
}
