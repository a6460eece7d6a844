import type { Answer } from "#tests/conformance/wire/answers.ts";
import type { Actor } from "./actors.ts";
import type { Probe } from "./probes.ts";

/**
 * What is wrong with the answer to a probe, or undefined: it shows what only the victim may see, or it differs from the
 * answer for an id that does not exist.
 */
export function leakIn(probe: Probe, foreign: Answer, missing: Answer, secrets: readonly string[]): string | undefined {
  if (foreign.code === "BROKEN" || missing.code === "BROKEN") return `${probe.what}: no answer`;
  if (foreign.code === "RESOURCE_EXHAUSTED") return `${probe.what}: ${foreign.reason} ${foreign.message}`;
  const said = JSON.stringify(foreign);
  const probed = new Set(probe.swapped.map((pair) => pair.foreign));
  const shown = secrets.find((secret) => !probed.has(secret) && said.includes(secret));
  if (shown !== undefined) return `${probe.what}: shows ${shown}: ${said.slice(0, 600)}`;
  const [one, other] = [normal(foreign, probe, "foreign"), normal(missing, probe, "missing")];
  return one === other ? undefined : `${probe.what}:\n  foreign ${one}\n  missing ${other}`;
}

/** Everything of the victim's that would be a leak to this attacker. */
export function secretsOf(victim: Actor, attacker: Actor): string[] {
  const { tenant, agent, ...own } = victim.owns;
  const sameTenant = attacker.principal.tenantId === victim.principal.tenantId;
  const shared = sameTenant ? [] : [...tenant, ...agent];
  // The text also describes the victim's agent, which its tenant's users may read.
  const texts = sameTenant ? victim.texts.slice(1) : victim.texts;
  return [...Object.values(own).flat(), ...shared, ...texts];
}

const VOLATILE_HEADERS = new Set(["date", "content-length", "x-request-id", "traceparent", "etag", "server-timing"]);

/** Counts and times that move on with the caller's own requests, in proto and JSON names. */
const VOLATILE_FIELDS = /^(etag|version|message_?count|(\w*_)?seq|\w*Seq|\w+_?tokens|duration_?ms|cost_?nano_?usd)$/i;

/** An answer without the probed ids, and without what differs from call to call. */
export function normal(answer: Answer, probe: Pick<Probe, "swapped">, side: "foreign" | "missing"): string {
  const { code, reason, message, details, httpStatus, messages } = answer;
  const headers = Object.entries(answer.headers)
    .filter(([name]) => !VOLATILE_HEADERS.has(name))
    .map(([name, value]) => `${name}: ${/^(rate|retry)/.test(name) ? value.replaceAll(/\d+/g, "N") : value}`)
    .toSorted();
  // How a text is cut into pieces is chance, and a stream that was left has shown as much as there was time for.
  const shown = code === "LEFT" ? undefined : messages.at(-1);
  const whole = { httpStatus, code, reason, message, details, shown, headers };
  let text = JSON.stringify(whole, (name, value: unknown) => (VOLATILE_FIELDS.test(name) ? undefined : value));
  for (const [i, pair] of probe.swapped.entries()) text = text.replaceAll(pair[side], `PROBED${i}`);
  return (
    text
      // The scripted model repeats what it is told of the caller, which it is told once in a session.
      .replaceAll(/<user_profile>.*?<\/user_profile>\\*n/g, "")
      .replaceAll(/"request_?id":"[^"]*"/gi, '"request_id":"R"')
      .replaceAll(/am_live_\w+/g, "SECRET")
      .replaceAll(/\b[a-z]{3}_[0-7][0-9a-z]{25}\b/g, "ID")
      .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "UUID")
      .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
      .replaceAll(/"(next_?page_?token)":"[^"]*"/gi, '"$1":"T"')
      .replaceAll(/probe-\d+/g, "NAME")
  );
}
