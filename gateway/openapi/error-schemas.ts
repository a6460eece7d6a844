import type { DescMessage } from "@bufbuild/protobuf";
import { ErrorReasonSchema } from "#gen/agentmesh/common/v1/error_reason_pb.ts";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.ts";
import { docOf } from "./proto-docs.ts";
import { defined, type Schema } from "./schema.ts";
import type { SchemaBook } from "./schema-book.ts";

const DETAILS: readonly (readonly [desc: DescMessage, description: string])[] = [
  [ErrorInfoSchema, "Always there: the reason, for programs."],
  [BadRequestSchema, "With INVALID_ARGUMENT: every field that is wrong."],
  [RetryInfoSchema, "When trying again can help: after how long; also the `Retry-After` header."],
  [RequestInfoSchema, "The request's id for questions to the operator; also the `X-Request-Id` header."],
];

/** Adds the schemas of AIP-193 errors and gives a reference to their body. */
export function defineErrors(book: SchemaBook): Schema {
  const details = DETAILS.map(([desc, description]) => book.define(desc.name, detail(book, desc, description)));
  return book.define("Error", {
    type: "object",
    description: `The body of every error (AIP-193).\n\n${reasons()}`,
    properties: {
      error: {
        type: "object",
        properties: {
          code: { type: "integer", description: "The HTTP status." },
          status: {
            type: "string",
            description: "The canonical code, a name of google.rpc.Code.",
            examples: ["NOT_FOUND"],
          },
          message: { type: "string", description: "For people." },
          details: { type: "array", items: { anyOf: [...details, { $ref: "#/components/schemas/OtherDetail" }] } },
        },
        required: ["code", "status", "message", "details"],
      },
    },
    required: ["error"],
  });
}

function detail(book: SchemaBook, desc: DescMessage, description: string): Schema {
  const { properties } = book.message(desc, "sparse");
  book.components["OtherDetail"] ??= {
    type: "object",
    description: "A detail of another type.",
    properties: { "@type": { type: "string" } },
    required: ["@type"],
  };
  return defined({
    type: "object",
    description,
    properties: {
      "@type": { type: "string", const: `type.googleapis.com/${desc.typeName}` },
      ...(properties as Schema),
    },
    required: ["@type"],
  });
}

function reasons(): string {
  const prefix = "ERROR_REASON_";
  const lines = ErrorReasonSchema.values
    .filter(({ number }) => number !== 0)
    .map((value) => `- \`${value.name.slice(prefix.length)}\`: ${docOf(value) ?? ""}`);
  return `Reasons, in the detail \`ErrorInfo\`; accept those that you do not know:\n\n${lines.join("\n")}`;
}

interface Failure {
  readonly status: number;
  readonly name: string;
  readonly description: string;
  readonly headers?: readonly string[];
}

const FAILURES: readonly Failure[] = [
  { status: 400, name: "BadRequest", description: "Something in the request is wrong; the details name every field." },
  {
    status: 401,
    name: "Unauthenticated",
    description: "There is no credential, or it is not valid.",
    headers: ["WWW-Authenticate"],
  },
  { status: 403, name: "PermissionDenied", description: "The credential lacks a scope, or a policy forbids it." },
  { status: 404, name: "NotFound", description: "There is no such resource for this caller." },
  { status: 409, name: "Conflict", description: "It exists already, has changed, or is busy." },
  { status: 413, name: "PayloadTooLarge", description: "The body is too large." },
  { status: 415, name: "UnsupportedMediaType", description: "The body is not `application/json`." },
  {
    status: 429,
    name: "ResourceExhausted",
    description: "Too many requests, or a quota is used up.",
    headers: ["Retry-After", "RateLimit", "RateLimit-Policy"],
  },
  {
    status: 503,
    name: "Unavailable",
    description: "The service, or one that it needs, is away for the moment: try again.",
    headers: ["Retry-After"],
  },
  { status: 504, name: "DeadlineExceeded", description: "The deadline passed." },
];

/** `components.responses`: one by status that a caller should be ready for. */
export function errorResponses(error: Schema): Record<string, Schema> {
  const content = { "application/json": { schema: error } };
  const all = FAILURES.map(({ name, description, headers = [] }) => [
    name,
    { description, headers: headersOf(["X-Request-Id", ...headers]), content },
  ]);
  const other = { description: "Any other error.", headers: headersOf(["X-Request-Id"]), content };
  return { ...Object.fromEntries(all), Other: other };
}

/** References to `components.headers`. */
export function headersOf(names: readonly string[]): Schema {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
}

/** Which of the errors an operation can answer with. */
export function errorsOf(can: { auth: boolean; missing: boolean; change: boolean; body: boolean }): Schema {
  const never = new Set([
    ...(can.auth ? [] : [401, 403]),
    ...(can.missing ? [] : [404]),
    ...(can.change ? [] : [409]),
    ...(can.body ? [] : [413, 415]),
  ]);
  const shown = FAILURES.filter(({ status }) => !never.has(status));
  const refs = shown.map(({ status, name }) => [String(status), { $ref: `#/components/responses/${name}` }]);
  return { ...Object.fromEntries(refs), default: { $ref: "#/components/responses/Other" } };
}

export const RESPONSE_HEADERS: Readonly<Record<string, Schema>> = {
  "X-Request-Id": { description: "Id of the request, in logs and traces.", schema: { type: "string" } },
  ETag: { description: "Version of the resource, for `If-Match`.", schema: { type: "string" } },
  Location: {
    description: "Where the run's events can be read again, with `Last-Event-ID`.",
    schema: { type: "string" },
  },
  RateLimit: {
    description: "What is left of the caller's limits (draft-ietf-httpapi-ratelimit-headers).",
    schema: { type: "string" },
    example: '"key-runs";r=2499;t=1',
  },
  "RateLimit-Policy": {
    description: "The caller's limits: quota, and the seconds in which it is whole again.",
    schema: { type: "string" },
    example: '"key-runs";q=2500;w=5',
  },
  "Retry-After": {
    description: "Seconds to wait before the next try, when they are known.",
    schema: { type: "integer" },
  },
  "WWW-Authenticate": { description: "RFC 6750.", schema: { type: "string" } },
};
