import { createHash } from "node:crypto";
import { DOCS_STYLE, docsPage } from "../openapi/docs-page.ts";
import type { OpenApiDocument } from "../openapi/document.ts";
import { staticFile } from "../openapi/static-file.ts";
import type { Face } from "./face.ts";

/** Nothing but the page's own style: no script, no other origin, no frame around it. */
const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash("sha256").update(DOCS_STYLE).digest("base64")}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** `/docs`: the OpenAPI document as a page that needs no script and loads nothing. */
export function docsFace(document: OpenApiDocument): Face {
  return staticFile(() => Buffer.from(docsPage(document)), "text/html; charset=utf-8", {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
  });
}
