import { newId } from "../id.ts";

const ACCEPTED = /^[A-Za-z0-9._-]{1,128}$/;

/** The caller's `x-request-id` when it is harmless to log (1-128 of A-Z a-z 0-9 . _ -), else a new id. */
export function requestIdOf(header: Headers): string {
  const given = header.get("x-request-id");
  return given !== null && ACCEPTED.test(given) ? given : newId("req");
}
