import type { DescService } from "@bufbuild/protobuf";
import type { Aliases } from "../rest/document-aliases.ts";
import type { Route } from "../rest/route.ts";
import { defineErrors, errorResponses, RESPONSE_HEADERS } from "./error-schemas.ts";
import { operationOf, SECURITY_SCHEMES } from "./operation.ts";
import { OVERLAY_PATHS, PROCESS_TAG } from "./overlay.ts";
import { HEADER_PARAMETERS } from "./parameters.ts";
import { createPathNames } from "./path-names.ts";
import { docOf } from "./proto-docs.ts";
import { defined, type Schema } from "./schema.ts";
import { SchemaBook } from "./schema-book.ts";

const DESCRIPTION = `Agents over REST. The same methods answer Connect, gRPC and gRPC-Web at this address, as \`x-rpc\` says.

JSON is snake_case; requests may use camelCase, too. 64-bit integers are strings in answers, strings or numbers in requests. An unknown field or parameter is an error. In a request \`null\` is "not given"; in a PATCH it clears. A PATCH without \`update_mask\` changes the fields whose keys its body has.`;

/** An OpenAPI 3.1 document; JSON. */
export type OpenApiDocument = Schema & { readonly paths: Schema };

/**
 * The document of these routes, compiled from the same descriptors, so that it cannot say what the REST face does not do.
 *
 * @param routes those that the REST face serves
 */
export function openApiDocument(routes: readonly Route[], aliases: Aliases, version: string): OpenApiDocument {
  const book = new SchemaBook((desc) => aliases.fields(desc));
  const context = { book, aliases, error: defineErrors(book) };
  const pathNames = createPathNames();
  const paths: Record<string, Schema> = {};
  const bindings = new Map<Route["method"], number>();
  for (const route of routes) {
    const place = pathNames(route);
    const binding = bindings.get(route.method) ?? 0;
    bindings.set(route.method, binding + 1);
    paths[place.path] = {
      ...paths[place.path],
      [route.httpMethod.toLowerCase()]: operationOf(route, place, binding, context),
    };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "agentmesh",
      version,
      description: DESCRIPTION,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    tags: [...tagsOf(routes), PROCESS_TAG],
    paths: { ...paths, ...OVERLAY_PATHS },
    components: {
      schemas: sorted(book.components),
      responses: errorResponses(context.error),
      parameters: HEADER_PARAMETERS,
      headers: RESPONSE_HEADERS,
      securitySchemes: SECURITY_SCHEMES,
    },
  };
}

function tagsOf(routes: readonly Route[]): Schema[] {
  const services = new Set<DescService>(routes.map(({ method }) => method.parent));
  return [...services].map((service) => defined({ name: service.name, description: docOf(service) }));
}

function sorted(schemas: Readonly<Record<string, Schema>>): Schema {
  return Object.fromEntries(Object.entries(schemas).sort(([a], [b]) => (a < b ? -1 : 1)));
}
