import type { JsonValue } from "@bufbuild/protobuf";
import { componentHtml, items, members, nameOfRef, schemaHtml, text, typeHtml } from "./docs-schema.ts";
import type { OpenApiDocument } from "./document.ts";
import { type Html, html, inline, prose } from "./html.ts";
import type { Schema } from "./schema.ts";

export const DOCS_STYLE = `
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: light-dark(#0b57d0, #8ab4f8); }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; display: grid; grid-template-columns: 19rem minmax(0, 62rem); }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1rem; border-right: 1px solid var(--line); }
nav ul { list-style: none; margin: 0 0 1rem; padding: 0; }
nav li { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
main { padding: 1rem 2rem 6rem; }
section { border-top: 1px solid var(--line); padding: .5rem 0 1rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
code, pre { font: .9em ui-monospace, monospace; }
pre { background: var(--soft); padding: .75rem; overflow: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
td { border-top: 1px solid var(--line); padding: .25rem .75rem .25rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { width: 14rem; } td:nth-child(2) { width: 12rem; }
small, em { opacity: .75; }
b.verb { display: inline-block; min-width: 4.5rem; }
@media (max-width: 60rem) { body { display: block; } nav { position: static; height: auto; border: 0; } main { padding: 1rem; } }
`;

interface Operation {
  readonly verb: string;
  readonly path: string;
  readonly operation: Schema;
}

/** The document as one page of HTML that needs no script and loads nothing. */
export function docsPage(document: OpenApiDocument): string {
  const info = document["info"] as Schema;
  const operations = members(document.paths).flatMap(([path, item]) =>
    members(item).map(([verb, operation]) => ({ verb: verb.toUpperCase(), path, operation })),
  );
  const groups = items(document["tags"]).map((tag) => ({
    name: String(tag["name"]),
    description: text(tag["description"]),
    operations: operations.filter(({ operation }) => items(operation["tags"]).includes(tag["name"] as never)),
  }));
  const components = document["components"] as Record<string, Schema>;
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${text(info["title"])} API</title><style>${{ html: DOCS_STYLE }}</style></head><body>
<nav><h1>${text(info["title"])}</h1>${groups.map(
    (group) =>
      html`<strong>${group.name}</strong><ul>${group.operations.map(
        ({ operation, verb }) =>
          html`<li><a href="#${idOf(operation)}"><code>${verb}</code> ${inline(text(operation["summary"]) ?? idOf(operation))}</a></li>`,
      )}</ul>`,
  )}<a href="#schemas">Schemas</a></nav>
<main>${prose(text(info["description"]))}
<p><a href="/openapi.json">openapi.json</a> · <a href="/api.binpb">api.binpb</a> (descriptors) · version ${text(info["version"])}</p>
${groups.map(
  (group) =>
    html`<h2>${group.name}</h2>${prose(group.description)}${group.operations.map((one) => operationHtml(one, components))}`,
)}
<h2 id="schemas">Schemas</h2>${members(components["schemas"]).map(([name, schema]) => componentHtml(name, schema))}
</main></body></html>`;
  return page.html;
}

function idOf(operation: Schema): string {
  return String(operation["operationId"]);
}

function operationHtml({ verb, path, operation }: Operation, components: Record<string, Schema>): Html {
  const parameters = items(operation["parameters"]).map((parameter) => resolved(parameter, components["parameters"]));
  const body = contentOf(operation["requestBody"]);
  return html`<section id="${idOf(operation)}"><h3><b class="verb">${verb}</b> <code>${path}</code></h3>
${prose(text(operation["description"]) ?? text(operation["summary"]))}
${operation["x-rpc"] === undefined ? "" : html`<p><small>RPC <code>${text(operation["x-rpc"])}</code></small></p>`}
<pre>${curl(verb, path, operation)}</pre>
${parameters.length === 0 ? "" : html`<h4>Parameters</h4><table>${parameters.map(parameterRow)}</table>`}
${body === undefined ? "" : html`<h4>Body</h4>${shown(body)}`}
<h4>Answers</h4><table>${members(operation["responses"]).map(([status, response]) =>
    responseRow(status, resolved(response, components["responses"])),
  )}</table></section>
`;
}

function parameterRow(parameter: Schema): Html {
  return html`<tr><td><code>${text(parameter["name"])}</code>${parameter["required"] === true ? html` <em>required</em>` : ""}</td>
<td>${text(parameter["in"])}, ${typeHtml((parameter["schema"] as Schema | undefined) ?? {})}</td>
<td>${inline(text(parameter["description"]) ?? "")}</td></tr>`;
}

function responseRow(status: string, response: Schema): Html {
  const schema = contentOf(response);
  return html`<tr><td>${status}</td><td>${schema === undefined ? "" : typeHtml(schema)}</td><td>${inline(text(response["description"]) ?? "")}</td></tr>`;
}

/** The fields of a schema that is written out, or a link to a component. */
function shown(schema: Schema): Html {
  return schema["$ref"] === undefined ? schemaHtml(schema) : html`<p>${typeHtml(schema)}</p>`;
}

/** The schema of the first content type. */
function contentOf(value: JsonValue | undefined): Schema | undefined {
  const content = members(value).find(([name]) => name === "content")?.[1];
  return members(content)[0]?.[1]["schema"] as Schema | undefined;
}

function resolved(value: Schema, components: Schema | undefined): Schema {
  return value["$ref"] === undefined
    ? value
    : ((components?.[nameOfRef(value["$ref"])] as Schema | undefined) ?? value);
}

function curl(verb: string, path: string, operation: Schema): string {
  const isOpen = items(operation["security"]).length === 0;
  const lines = [`curl${verb === "GET" ? "" : ` -X ${verb}`} "$URL${path}"`];
  if (!isOpen) lines.push('-H "Authorization: Bearer $KEY"');
  if (operation["requestBody"] !== undefined) lines.push("-H \"Content-Type: application/json\" -d '{…}'");
  if (isStream(operation)) lines.push("-N");
  return lines.join(" \\\n  ");
}

function isStream(operation: Schema): boolean {
  const answer = members(operation["responses"]).find(([status]) => status === "200")?.[1];
  return members(answer?.["content"]).some(([type]) => type === "text/event-stream");
}
