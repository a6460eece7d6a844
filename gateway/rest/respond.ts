import type { JsonValue } from "@bufbuild/protobuf";
import { type Exchange, isClosed } from "../exchange.ts";
import type { HttpFailure } from "./error-body.ts";

/** Headers of every answer of the REST face: answers belong to one credential, and JSON is never anything else. */
export const COMMON_HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
};

/** Answers with JSON. A response that was begun or closed already is left alone. */
export function respondJson(
  exchange: Exchange,
  status: number,
  json: JsonValue,
  headers: Readonly<Record<string, string>> = {},
): void {
  const { response, httpMethod } = exchange;
  if (response.headersSent || isClosed(exchange)) return;
  const body = Buffer.from(JSON.stringify(json));
  response.writeHead(status, {
    ...COMMON_HEADERS,
    "content-type": "application/json",
    "content-length": body.length,
    ...headers,
  });
  if (httpMethod === "HEAD") response.end();
  else response.end(body);
}

export function respondFailure(exchange: Exchange, failure: HttpFailure, requestId: string): void {
  const headers = { ...failure.headers, "x-request-id": requestId };
  respondJson(exchange, failure.status, failure.body as unknown as JsonValue, headers);
}
