import { cors } from "@connectrpc/connect";
import type { Exchange } from "../exchange.ts";

/** Lets scripts of other origins call the API. */
export interface Cors {
  /** Adds the headers of an answer; true when the request was a preflight and is answered. */
  apply(exchange: Exchange): boolean;
}

const METHODS = ["GET", "POST", "PATCH", "DELETE"];

const REQUEST_HEADERS = [
  ...cors.allowedHeaders,
  "Authorization",
  "X-API-Key",
  "Idempotency-Key",
  "If-Match",
  "Last-Event-ID",
  "X-Request-Id",
  "X-Request-Timeout",
  "traceparent",
  "tracestate",
];

const EXPOSED_HEADERS = [
  ...cors.exposedHeaders,
  "ETag",
  "Location",
  "RateLimit",
  "RateLimit-Policy",
  "Retry-After",
  "WWW-Authenticate",
  "X-Request-Id",
];

const PREFLIGHT_MAX_AGE_S = 7200;

/**
 * Credentials are API keys that a script must hold and send itself; no cookie is ever read and
 * `Access-Control-Allow-Credentials` is never sent, so that another origin's script gains nothing that its author could
 * not do with curl.
 *
 * @param origins origins such as `https://app.example.com`; `*` is any; none switches CORS off
 */
export function createCors(origins: readonly string[]): Cors {
  const any = origins.includes("*");
  const allowed = new Set(origins);
  return {
    apply({ request, response, httpMethod, header }) {
      const origin = header.get("origin");
      const preflight = httpMethod === "OPTIONS" && origin !== null && header.has("access-control-request-method");
      if (origins.length > 0 && !any) response.setHeader("vary", "Origin");
      if (origin !== null && (any || allowed.has(origin))) {
        response.setHeader("access-control-allow-origin", any ? "*" : origin);
        if (preflight) {
          response.setHeader("access-control-allow-methods", METHODS.join(", "));
          response.setHeader("access-control-allow-headers", REQUEST_HEADERS.join(", "));
          response.setHeader("access-control-max-age", PREFLIGHT_MAX_AGE_S);
        } else {
          response.setHeader("access-control-expose-headers", EXPOSED_HEADERS.join(", "));
        }
      }
      if (!preflight) return false;
      request.resume();
      response.statusCode = 204;
      response.end();
      return true;
    },
  };
}
