// Bundles the page and serves it on a port of its own: for the browser another origin than the mesh.
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { build } from "esbuild";

const page = join(import.meta.dirname, "page");
const { outputFiles } = await build({
  entryPoints: [join(page, "main.ts")],
  bundle: true,
  format: "esm",
  minify: true,
  write: false,
});
const files: Record<string, { type: string; body: string }> = {
  "/": { type: "text/html", body: await readFile(join(page, "index.html"), "utf8") },
  "/main.js": { type: "text/javascript", body: outputFiles[0]?.text ?? "" },
};

const server = createServer((request, response) => {
  const file = files[request.url ?? ""];
  response.writeHead(file ? 200 : 404, { "content-type": `${file?.type ?? "text/plain"}; charset=utf-8` });
  response.end(file?.body);
});
server.listen(Number(process.env["PORT"] ?? 5173), "127.0.0.1");
await once(server, "listening");

// Behind #, the settings reach the page and no server.
const settings = new URLSearchParams({
  url: process.env["AGENTMESH_URL"] ?? "http://127.0.0.1:8080",
  key: process.env["AGENTMESH_KEY"] ?? "",
});
console.log(`open http://127.0.0.1:${(server.address() as AddressInfo).port}/#${settings}`);
