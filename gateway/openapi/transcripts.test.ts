import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { createParser } from "eventsource-parser";
import { PUBLIC_SERVICES, publicMethods } from "../public-services.ts";
import { createAliases, DOCUMENT_ALIASES } from "../rest/document-aliases.ts";
import { routesOf } from "../rest/route.ts";
import { openApiDocument } from "./document.ts";
import type { Schema } from "./schema.ts";

// Real requests and answers (the golden transcripts of the REST face) against the document's schemas.

const GOLDENS = new URL("../rest/goldens/", import.meta.url);
const document = openApiDocument(
  publicMethods(PUBLIC_SERVICES).flatMap(routesOf),
  createAliases(DOCUMENT_ALIASES),
  "1",
);
const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
ajv.addSchema(document, "document");

interface Transcript {
  readonly verb: string;
  readonly path: string;
  readonly sent: unknown;
  readonly status: string;
  readonly type: string;
  /** Names of the headers that only some answers have. */
  readonly headers: readonly string[];
  readonly answer: string;
}

async function readTranscript(file: string): Promise<Transcript> {
  const [head = "", answerHead = "", ...rest] = (await readFile(new URL(file, GOLDENS), "utf8")).split("\n\n");
  const [requestLine = "", ...body] = head.split("\n");
  const [verb = "", target = ""] = requestLine.split(" ");
  const [status = "", ...headers] = answerHead.split("\n");
  const type = headers.find((line) => line.startsWith("content-type: "))?.slice("content-type: ".length) ?? "";
  return {
    verb: verb.toLowerCase(),
    path: target.split("?")[0] ?? "",
    sent: body.length === 0 ? undefined : JSON.parse(body.join("\n")),
    status,
    type: type.split(";")[0] ?? "",
    headers: headers.map((line) => line.split(":")[0] ?? "").filter((name) => name === "etag" || name === "location"),
    answer: rest.join("\n\n"),
  };
}

/** The template of the document that a path belongs to, the one with the fewest parameters. */
function templateOf(path: string): string {
  const fits = Object.keys(document.paths).filter((template) =>
    new RegExp(`^${template.replaceAll(/\{[^}]+\}/g, "[^/:]+").replaceAll(".", "\\.")}$`).test(path),
  );
  return fits.sort((a, b) => a.split("{").length - b.split("{").length)[0] ?? assert.fail(`no path for ${path}`);
}

function problems(pointer: readonly string[], value: unknown): string {
  const ref = pointer.map((token) => encodeURIComponent(token.replaceAll("~", "~0").replaceAll("/", "~1"))).join("/");
  const validate = ajv.compile({ $ref: `document#/${ref}` });
  return validate(value) ? "" : ajv.errorsText(validate.errors);
}

/** Where the schema of an answer is; a named response is followed. */
function answerPointer(place: readonly string[], { verb, path, status, type, headers }: Transcript): string[] {
  const item = document.paths[templateOf(path)] as Schema;
  const responses = (item[verb] as Schema)["responses"] as Schema;
  const response = responses[status] as Schema | undefined;
  assert.ok(response, `${verb} ${path} has no answer ${status}`);
  const documented = Object.keys((response["headers"] as Schema | undefined) ?? {}).map((name) => name.toLowerCase());
  for (const name of headers) assert.ok(documented.includes(name), `${verb} ${path} ${status}: ${name}`);
  const ref = response["$ref"] as string | undefined;
  const base = ref === undefined ? [...place, "responses", status] : ref.slice("#/".length).split("/");
  return [...base, "content", type, "schema"];
}

describe("the transcripts of the REST face", () => {
  test("fit the document, requests and answers", async () => {
    const files = await readdir(GOLDENS);
    assert.ok(files.length >= 12);
    for (const file of files) {
      const transcript = await readTranscript(file);
      const place = ["paths", templateOf(transcript.path), transcript.verb];
      if (transcript.sent !== undefined) {
        const found = problems([...place, "requestBody", "content", "application/json", "schema"], transcript.sent);
        // The one that is refused is refused for what the schema says.
        if (transcript.status === "400") assert.match(found, /additional properties/, file);
        else assert.equal(found, "", file);
      }
      const pointer = answerPointer(place, transcript);
      if (transcript.type === "application/json") {
        assert.equal(problems(pointer, JSON.parse(transcript.answer)), "", file);
        continue;
      }
      let events = 0;
      const parser = createParser({
        onEvent({ data, event }) {
          events += 1;
          const parsed = JSON.parse(data) as { type: string };
          assert.equal(parsed.type, event);
          assert.equal(problems(pointer, parsed), "", `${file}: ${data}`);
        },
      });
      parser.feed(transcript.answer);
      assert.ok(events > 1, file);
    }
  });

  test("would not fit with a field missing, unknown, or of another type", async () => {
    const place = ["paths", "/api/v1/tenants/{tenant_id}/agents", "post"];
    const { sent, answer } = await readTranscript("create-agent.txt");
    const body = [...place, "requestBody", "content", "application/json", "schema"];
    assert.match(problems(body, { ...(sent as object), temperature: 2.5 }), /must be <= 2/);
    assert.match(problems(body, { ...(sent as object), tools: ["a", "a"] }), /duplicate/);
    assert.match(problems(body, { ...(sent as object), nmae: "x" }), /additional properties/);
    const answered = [...place, "responses", "200", "content", "application/json", "schema"];
    const { tools: _gone, ...without } = JSON.parse(answer) as Record<string, unknown>;
    assert.match(problems(answered, without), /required property 'tools'/);
    const event = ["components", "schemas", "ChatStreamEvent"];
    assert.equal(problems(event, { type: "text", seq: "1", content: "x", item_id: "msg_1" }), "");
    assert.match(problems(event, { type: "text", seq: 1, content: "x", item_id: "msg_1" }), /seq must be string/);
  });

  test("of a stream that broke has an error event without seq", () => {
    const late = {
      type: "error",
      code: "UNAVAILABLE",
      reason: "STREAM_DRAINING",
      message: "Connect again.",
      details: [],
    };
    assert.equal(problems(["components", "schemas", "ChatStreamEvent"], late), "");
  });
});
