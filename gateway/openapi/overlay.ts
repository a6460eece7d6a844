import type { Schema } from "./schema.ts";

/** The tag of what is no method of a service. */
export const PROCESS_TAG: Schema = {
  name: "Process",
  description: "This process: its health, its metrics and its documents. No credential is needed.",
};

function page(operationId: string, summary: string, responses: Schema): Schema {
  return { get: { operationId, summary, tags: [String(PROCESS_TAG["name"])], responses, security: [] } };
}

function json(description: string, schema: Schema): Schema {
  return { description, content: { "application/json": { schema } } };
}

function file(type: string, description: string): Schema {
  return {
    "200": {
      description,
      headers: { ETag: { schema: { type: "string" } } },
      content: { [type]: {} },
    },
    "304": { description: "What `If-None-Match` names is current." },
  };
}

const HEALTH: Schema = {
  type: "object",
  properties: {
    status: { type: "string", enum: ["healthy", "degraded", "unhealthy"] },
    components: {
      type: "object",
      additionalProperties: {
        type: "object",
        properties: {
          status: { type: "string", enum: ["healthy", "unhealthy"] },
          error: { type: "string", enum: ["timeout", "unreachable"] },
          details: {
            type: "object",
            properties: {
              kind: { type: "string" },
              required: { type: "boolean" },
              latency_ms: { type: "integer" },
            },
            required: ["kind", "required", "latency_ms"],
          },
        },
        required: ["status", "details"],
      },
    },
    timestamp: { type: "string", format: "date-time" },
  },
  required: ["status", "components", "timestamp"],
};

function status(...values: string[]): Schema {
  return { type: "object", properties: { status: { type: "string", enum: values } }, required: ["status"] };
}

/** Services whose answers tell, in `Location`, where the run is; no descriptor says so. */
export const TELLS_LOCATION: ReadonlySet<string> = new Set(["agentmesh.agent.v1.ChatService"]);

/** The paths that no proto has; written by hand, and compared with the gateway's faces by a test. */
export const OVERLAY_PATHS: Readonly<Record<string, Schema>> = {
  "/": page("index", "Where to go from here", {
    "200": json("Links.", { type: "object", additionalProperties: { type: "string" } }),
  }),
  "/health": page("health", "Health of the components", {
    "200": json("Healthy, or degraded: something that is not required is away.", HEALTH),
    "503": json("Unhealthy: something that is required is away.", HEALTH),
  }),
  "/health/live": page("live", "Whether the process lives", { "200": json("It does.", status("alive")) }),
  "/health/ready": page("ready", "Whether requests may be sent here", {
    "200": json("They may.", status("ready")),
    "503": json("Not yet, or not any more.", status("not_ready", "draining")),
  }),
  "/metrics": page("metrics", "Metrics for Prometheus; near addresses only", {
    "200": { description: "Prometheus text.", content: { "text/plain": { schema: { type: "string" } } } },
    "403": { $ref: "#/components/responses/PermissionDenied" },
  }),
  "/openapi.json": page("openapi", "This document", file("application/json", "OpenAPI 3.1.")),
  "/docs": page("docs", "This document as a page", file("text/html", "A page without scripts.")),
  "/api.binpb": page(
    "descriptors",
    "The descriptors of the public services",
    file(
      "application/x-protobuf",
      "A google.protobuf.FileDescriptorSet, for `buf curl --schema` and `grpcurl -protoset`.",
    ),
  ),
};
