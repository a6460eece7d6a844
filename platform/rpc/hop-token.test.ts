import assert from "node:assert/strict";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { describe, mock, test } from "node:test";
import { Code } from "@connectrpc/connect";
import { decodeJwt, SignJWT } from "jose";
import { rootSecret } from "../secrets/root-secret.ts";
import { AppError } from "./errors.ts";
import { createHopSigner, createHopVerifier } from "./hop-token.ts";
import { deriveServiceKeys } from "./service-keys.ts";
import { rejection, testPrincipal } from "./test-mesh.contract.ts";

const SERVICES = ["gateway", "agent", "tool"];
const secret = randomBytes(32);
const keys = deriveServiceKeys(rootSecret([secret]), SERVICES);
const kidOf = (service: string) => keys.signing(service).kid;
const principal = testPrincipal(["agents:run", "tools:read"], { userId: "usr_1", actors: ["gateway"] });

async function refusal(token: string, audiences = ["tool"]): Promise<string> {
  const error = await rejection(createHopVerifier(audiences, keys).verify(token));
  assert.ok(error instanceof AppError, String(error));
  assert.equal(error.code, Code.Unauthenticated);
  assert.doesNotMatch(error.message, /JWT|claim|jose|kid/i, "the message tells nothing of the check");
  return error.reason;
}

interface Forgery {
  header?: Record<string, unknown>;
  claims?: Record<string, unknown>;
  signer?: string;
  ageS?: number;
  lifetimeS?: number;
}

/** A token as agent makes it for tool, with what a forger changes. */
function forge({ header, claims, signer = "agent", ageS = 0, lifetimeS = 60 }: Forgery = {}): Promise<string> {
  const issuedAt = Math.floor(Date.now() / 1000) - ageS;
  const all = {
    iss: "agent",
    aud: "tool",
    sub: "key_1",
    ten: "ten_1",
    scp: ["agents:run"],
    crd: "key_1",
    act: ["agent"],
  };
  return new SignJWT({ ...all, iat: issuedAt, exp: issuedAt + lifetimeS, ...claims })
    .setProtectedHeader({ alg: "EdDSA", typ: "agentmesh-hop+jwt", kid: kidOf("agent"), ...header })
    .sign(keys.signing(signer).key);
}

const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");

describe("hop tokens", () => {
  test("carry the principal to the audience, with the issuer as its last actor", async () => {
    const token = await createHopSigner("agent", keys).sign(principal, "tool");
    const arrived = await createHopVerifier(["tool"], keys).verify(token);
    assert.deepEqual(arrived, { ...principal, actors: ["gateway", "agent"] });
    const { iat = 0, exp = 0, iss, aud } = decodeJwt(token);
    assert.deepEqual([iss, aud, exp - iat], ["agent", "tool", 60]);
  });

  test("a machine's principal has no user after the hop", async () => {
    const token = await createHopSigner("agent", keys).sign(testPrincipal(["agents:run"]), "tool");
    assert.equal((await createHopVerifier(["tool"], keys).verify(token)).userId, undefined);
  });

  test("the control: an unchanged forgery passes, so that each refusal below is for its own reason", async () => {
    assert.equal((await createHopVerifier(["tool"], keys).verify(await forge())).subject, "key_1");
  });

  test("another service's token is refused, also in a list of audiences", async () => {
    assert.equal(await refusal(await forge(), ["config"]), "TOKEN_AUDIENCE");
    assert.equal(await refusal(await forge({ claims: { aud: ["agent", "config"] } })), "TOKEN_AUDIENCE");
    assert.equal(await refusal(await forge({ claims: { aud: undefined } })), "TOKEN_AUDIENCE");
  });

  test("an expired token is refused beyond five seconds of clock skew", async () => {
    assert.equal(await refusal(await forge({ ageS: 66 })), "TOKEN_EXPIRED");
    await createHopVerifier(["tool"], keys).verify(await forge({ ageS: 62 }));
  });

  test("a token that gives itself a longer life than a hop may have is refused", async () => {
    assert.equal(await refusal(await forge({ ageS: 120, lifetimeS: 86_400 })), "TOKEN_EXPIRED");
    assert.equal(await refusal(await forge({ ageS: -3600, lifetimeS: 60 })), "CREDENTIAL_INVALID");
  });

  test("a service cannot speak as another one", async () => {
    assert.equal(await refusal(await forge({ claims: { iss: "gateway" } })), "CREDENTIAL_INVALID");
    const asGateway: Forgery = {
      header: { kid: kidOf("gateway") },
      claims: { iss: "gateway" },
      signer: "agent",
    };
    assert.equal(await refusal(await forge(asGateway)), "CREDENTIAL_INVALID");
    assert.equal(
      await refusal(await forge({ header: { kid: kidOf("gateway") }, signer: "gateway" })),
      "CREDENTIAL_INVALID",
    );
  });

  test("a foreign key, an unknown service and a missing key id are refused", async () => {
    const foreign = deriveServiceKeys(rootSecret([randomBytes(32)]), SERVICES);
    const token = await createHopSigner("agent", foreign).sign(principal, "tool");
    assert.equal(await refusal(token), "CREDENTIAL_INVALID");
    const own = await new SignJWT({ ...decodeJwt(await forge()) })
      .setProtectedHeader({ alg: "EdDSA", typ: "agentmesh-hop+jwt", kid: kidOf("agent") })
      .sign(foreign.signing("agent").key);
    assert.equal(await refusal(own), "CREDENTIAL_INVALID");
    for (const kid of ["agent", "console", "__proto__", "", undefined, 7]) {
      assert.equal(await refusal(await forge({ header: { kid } })), "CREDENTIAL_INVALID", String(kid));
    }
  });

  test("unsigned tokens and other algorithms are refused", async () => {
    const [, payload] = (await forge()).split(".");
    for (const alg of ["none", "None", "HS256", "ES256"]) {
      const header = base64url({ alg, typ: "agentmesh-hop+jwt", kid: kidOf("agent") });
      assert.equal(await refusal(`${header}.${payload}.`), "CREDENTIAL_INVALID", alg);
      assert.equal(await refusal(`${header}.${payload}.AAAA`), "CREDENTIAL_INVALID", alg);
    }
    // The public key as an HMAC secret: the classic confusion of asymmetric and symmetric keys.
    const pem = keys.checking(kidOf("agent"))?.key.export({ type: "spki", format: "pem" }) as string;
    const hmac = await new SignJWT({ ...decodeJwt(await forge()) })
      .setProtectedHeader({ alg: "HS256", typ: "agentmesh-hop+jwt", kid: kidOf("agent") })
      .sign(Buffer.from(pem));
    assert.equal(await refusal(hmac), "CREDENTIAL_INVALID");
  });

  test("a key that the token brings along is not used", async () => {
    const { privateKey, publicKey } = generateKeyPairSync("ed25519");
    const token = await new SignJWT({ ...decodeJwt(await forge()) })
      .setProtectedHeader({
        alg: "EdDSA",
        typ: "agentmesh-hop+jwt",
        kid: kidOf("agent"),
        jwk: publicKey.export({ format: "jwk" }),
      })
      .sign(privateKey);
    assert.equal(await refusal(token), "CREDENTIAL_INVALID");
  });

  test("a token of another kind is refused, though its signature is right", async () => {
    for (const typ of ["JWT", "at+jwt", undefined, "agentmesh-hop"]) {
      assert.equal(await refusal(await forge({ header: { typ } })), "CREDENTIAL_INVALID", String(typ));
    }
  });

  test("missing claims are refused", async () => {
    for (const claim of ["sub", "exp", "iat", "iss", "scp"]) {
      assert.equal(await refusal(await forge({ claims: { [claim]: undefined } })), "CREDENTIAL_INVALID", claim);
    }
    assert.equal(await refusal(await forge({ claims: { scp: "agents:run" } })), "CREDENTIAL_INVALID");
  });

  test("a changed, cut, or huge token is refused", async () => {
    const token = await forge();
    const [header, , signature] = token.split(".");
    const claims = { ...decodeJwt(token), scp: ["platform:admin"] };
    assert.equal(await refusal(`${header}.${base64url(claims)}.${signature}`), "CREDENTIAL_INVALID");
    for (const text of ["", ".", "..", "a.b.c", token.slice(0, -10), `${token}.x`, "\u0000", "x".repeat(8193)]) {
      assert.equal(await refusal(text), "CREDENTIAL_INVALID", text.slice(0, 20));
    }
    const huge = await forge({ claims: { scp: Array.from({ length: 1000 }, (_, n) => `scope${n}:read`) } });
    assert.ok(huge.length > 8192);
    assert.equal(await refusal(huge), "CREDENTIAL_INVALID");
  });

  test("one token is made per principal and audience and used until a third of its life is left", async () => {
    mock.timers.enable({ apis: ["Date"], now: Date.now() });
    try {
      const signer = createHopSigner("agent", keys);
      const first = await signer.sign(principal, "tool");
      assert.equal(await signer.sign(principal, "tool"), first);
      assert.notEqual(await signer.sign(principal, "config"), first);
      mock.timers.tick(39_000);
      assert.equal(await signer.sign(principal, "tool"), first);
      mock.timers.tick(2_000);
      assert.notEqual(await signer.sign(principal, "tool"), first);
    } finally {
      mock.timers.reset();
    }
  });

  test("another principal never gets a cached token, however alike", async () => {
    const signer = createHopSigner("agent", keys);
    const verifier = createHopVerifier(["tool"], keys);
    await signer.sign(principal, "tool");
    const other = { ...principal, tenantId: "ten_other" };
    assert.equal((await verifier.verify(await signer.sign(other, "tool"))).tenantId, "ten_other");
  });

  test("calls that come together with one token share its check, and its refusal, which is not remembered", async () => {
    const verifier = createHopVerifier(["tool"], keys);
    const token = await createHopSigner("agent", keys).sign(principal, "tool");
    const together = await Promise.all([1, 2, 3].map(() => verifier.verify(token)));
    assert.equal(new Set(together).size, 1, "the same object, so that onward tokens are shared too");
    const foreign = await createHopSigner("agent", keys).sign(principal, "gateway");
    const check = async () => (await rejection(verifier.verify(foreign))) as AppError;
    const refusals = await Promise.all([check(), check()]);
    assert.deepEqual(
      refusals.map(({ reason }) => reason),
      ["TOKEN_AUDIENCE", "TOKEN_AUDIENCE"],
    );
    assert.equal(refusals[0], refusals[1]);
    assert.notEqual(await check(), refusals[0]);
  });

  test("a verified token is remembered, and only until it expires", async () => {
    mock.timers.enable({ apis: ["Date"], now: Date.now() });
    try {
      const verifier = createHopVerifier(["tool"], keys);
      const token = await forge();
      const first = await verifier.verify(token);
      assert.equal(await verifier.verify(token), first, "the same object, so that onward tokens are cached too");
      mock.timers.tick(66_000);
      const error = await rejection(verifier.verify(token));
      assert.equal(error instanceof AppError && error.reason, "TOKEN_EXPIRED");
    } finally {
      mock.timers.reset();
    }
  });
});

describe("service keys", () => {
  const shown = (of: typeof keys, service: string) =>
    of.checking(of.signing(service).kid)?.key.export({ type: "spki", format: "pem" });

  test("are equal for equal secrets and differ between services and secrets", () => {
    const again = deriveServiceKeys(rootSecret([secret]), ["agent"]);
    const other = deriveServiceKeys(rootSecret([randomBytes(32)]), ["agent"]);
    assert.equal(shown(again, "agent"), shown(keys, "agent"));
    assert.notEqual(shown(keys, "agent"), shown(keys, "gateway"));
    assert.notEqual(shown(other, "agent"), shown(keys, "agent"));
    assert.equal(keys.checking(kidOf("agent"))?.key.asymmetricKeyType, "ed25519");
    assert.equal(keys.checking(kidOf("agent"))?.service, "agent");
  });

  test("exist for the named services only", () => {
    assert.equal(keys.checking("constructor"), undefined);
    assert.throws(() => keys.signing("console"), /no hop key/);
  });

  test("of the previous secret check and no longer sign after a rotation", async () => {
    const rotated = deriveServiceKeys(rootSecret([randomBytes(32), secret]), SERVICES);
    const before = await createHopSigner("agent", keys).sign(principal, "tool");
    assert.equal((await createHopVerifier(["tool"], rotated).verify(before)).subject, principal.subject);
    const after = await createHopSigner("agent", rotated).sign(principal, "tool");
    assert.equal(await refusal(after), "CREDENTIAL_INVALID", "who has not rotated yet cannot know the new key");
    assert.equal((await createHopVerifier(["tool"], rotated).verify(after)).subject, principal.subject);
  });
});
