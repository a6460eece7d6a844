import type { ModelCredential } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import { Violations } from "./text-rules.ts";

/** Providers that take keys. */
const KEY_PROVIDERS = ["anthropic", "openai"];

/** From this length on a key's last four characters give nothing away. */
const SHOWS_SUFFIX = 12;

/** Whether a tenant can have a credential for a provider. */
export function takesKeys(provider: string): boolean {
  return KEY_PROVIDERS.includes(provider);
}

/** What a key may be known by; empty when it is too short for that. */
export function keySuffix(apiKey: string): string {
  return apiKey.length >= SHOWS_SUFFIX ? apiKey.slice(-4) : "";
}

/** Throws FIELD_INVALID naming every field that is wrong, and quoting none. */
export function checkCredential({ llmProvider, apiKey, baseUrl }: ModelCredential): void {
  const wrong = new Violations("credential");
  if (!takesKeys(llmProvider)) wrong.add("llm_provider", `must be one of ${KEY_PROVIDERS.join(", ")}`);
  // It becomes a header.
  if (!/^[\x21-\x7e]+$/.test(apiKey)) wrong.add("api_key", "must be a key: printable ASCII characters without spaces");
  if (baseUrl !== "") {
    const problem = llmProvider === "openai" ? urlProblem(baseUrl) : "only OpenAI-compatible servers have an address";
    if (problem !== undefined) wrong.add("base_url", problem);
  }
  if (wrong.found.length > 0) throw invalidFields(...wrong.found);
}

/**
 * What is wrong with the address of a server that the tenant names. Only its form is judged; what its name resolves to is
 * looked at by whoever connects. An address in numbers is refused altogether: no provider has one, and its spellings are many.
 */
function urlProblem(text: string): string | undefined {
  const url = URL.canParse(text) && !/[\s\p{Cc}\\]/u.test(text) ? new URL(text) : undefined;
  if (url?.protocol !== "https:") return "must be an https:// address";
  if (url.username !== "" || url.password !== "" || /^https:\/\/[^/]*@/i.test(text)) {
    return "must not hold a user or a password";
  }
  if (url.search !== "" || url.hash !== "" || /[?#]/.test(text)) return "must end with its path";
  if (!isPublicName(url.hostname)) return "must name a public host, such as https://api.example.com/v1";
  return undefined;
}

/** Names that only ever mean something inside a network (RFC 6761, RFC 6762, RFC 9476, ICANN's "internal"). */
const INSIDE = /(^|\.)(localhost|local|internal|intranet|lan|home|corp|private|home\.arpa|onion|invalid|alt)$/;

/** The URL parser has brought every spelling of an IPv4 address into the dotted one, and IPv6 into brackets. */
function isPublicName(hostname: string): boolean {
  const name = hostname.toLowerCase().replace(/\.$/, "");
  return /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$/.test(name) && !INSIDE.test(name);
}
