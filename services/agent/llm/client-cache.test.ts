import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ClientCache, type ClientTarget } from "./client-cache.ts";

const fetch: typeof globalThis.fetch = () => assert.fail();
const tenantFetch: typeof globalThis.fetch = () => assert.fail();

function cache(more = {}) {
  const made: ClientTarget[] = [];
  const make = (target: ClientTarget) => {
    made.push(target);
    return target;
  };
  const options = { apiKey: "sk-platform", baseUrl: "https://p", fetch, tenantFetch, make, capacity: 2, ...more };
  return { clients: new ClientCache(options), made };
}

describe("the clients of a provider", () => {
  test("one is made per credential and kept while it is in use", () => {
    const { clients, made } = cache();
    const a = { apiKey: "sk-a", id: "own:a:1" };
    assert.equal(clients.get(a), clients.get({ ...a, id: "own:a:2" }));
    assert.equal(clients.get(undefined), clients.get(undefined));
    assert.notEqual(clients.get(a), clients.get({ ...a, baseUrl: "https://t" }));
    assert.equal(made.length, 3);
    const kept = clients.get(a);
    clients.get({ apiKey: "sk-c", id: "c" });
    assert.equal(clients.size, 2);
    assert.equal(clients.get(a), kept);
    clients.get({ ...a, baseUrl: "https://t" });
    assert.equal(made.length, 5);
  });

  test("the platform's key goes to the platform's address only, a tenant's address has the tenant's door only", () => {
    const { clients } = cache();
    const seen = [
      clients.get(undefined),
      clients.get({ apiKey: "sk-t", id: "t" }),
      clients.get({ apiKey: "sk-t", id: "t", baseUrl: "https://t" }),
    ].map(({ apiKey, baseUrl, fetch: door }) => [apiKey, baseUrl, door === tenantFetch]);
    assert.deepEqual(seen, [
      ["sk-platform", "https://p", false],
      ["sk-t", "https://p", false],
      ["sk-t", "https://t", true],
    ]);
  });

  test("no key, an unsendable key and an address without a door are errors of the request", () => {
    assert.throws(() => cache({ apiKey: undefined }).clients.get(undefined), { kind: "authentication" });
    const { clients } = cache({ tenantFetch: undefined });
    assert.throws(() => clients.get({ apiKey: "a\nb", id: "t" }), { kind: "authentication" });
    assert.throws(() => clients.get({ apiKey: "a", id: "t", baseUrl: "https://t" }), { code: "address_refused" });
    assert.throws(() => cache().clients.get({ apiKey: "a", id: "t", baseUrl: "no address" }), {
      code: "address_refused",
    });
  });
});
