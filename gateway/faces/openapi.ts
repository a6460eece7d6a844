import type { OpenApiDocument } from "../openapi/document.ts";
import { staticFile } from "../openapi/static-file.ts";
import type { Face } from "./face.ts";

/** `/openapi.json`: what the REST face answers. */
export function openApiFace(document: OpenApiDocument): Face {
  return staticFile(() => Buffer.from(JSON.stringify(document)), "application/json");
}
