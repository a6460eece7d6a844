import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { chromium as engine } from "playwright-core";
import { assertChat, scriptChats, startExample, withMesh } from "./run-example.ts";
import { chromium, exampleTest } from "./toolchain.ts";

const ROOT = join(import.meta.dirname, "../..");

/** Nothing but the page goes out: a browser of its own accord looks for updates, extensions and connectivity. */
const QUIET = [
  "--no-sandbox", // Chromium refuses to run as root with it
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

test("the page is well typed against the browser's library", () => {
  const { status, stdout } = spawnSync(
    join(ROOT, "node_modules/.bin/tsc"),
    ["--noEmit", "-p", "examples/browser/page"],
    {
      cwd: ROOT,
      encoding: "utf8",
    },
  );
  assert.equal(status, 0, stdout);
});

exampleTest("a page of another origin streams a chat with a tool call, leaves and resumes", chromium, () =>
  withMesh(async (mesh) => {
    scriptChats(mesh);
    const { promise: address, resolve } = Promise.withResolvers<string>();
    const onLine = (line: string) => line.startsWith("open ") && resolve(line.slice("open ".length));
    await using server = startExample("browser", mesh, onLine, { PORT: "0" });
    const failed = server.exited.then((exit) => assert.fail(`the page's server ended: ${JSON.stringify(exit)}`));
    const browser = await engine.launch({ channel: "chromium", executablePath: "/usr/bin/chromium", args: QUIET });
    try {
      const page = await browser.newPage();
      const complaints: string[] = [];
      page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
      page.on("pageerror", (error) => complaints.push(error.message));
      // Playwright's own request events leave preflights out.
      const devtools = await page.context().newCDPSession(page);
      const requests: string[] = [];
      devtools.on("Network.requestWillBeSent", ({ request }) => {
        if (request.url.startsWith(mesh.baseUrl)) requests.push(`${request.method} ${request.url.split("/").at(-1)}`);
      });
      await devtools.send("Network.enable");

      await page.goto(await Promise.race([address, failed]));
      await page.getByRole("button", { name: "Send" }).click();
      await page.getByText("[run_completed").waitFor({ timeout: 30_000 });
      assertChat((await page.getByRole("log").textContent()) ?? "");
      assert.deepEqual(complaints, []);
      // Told in no order of their own: the browser asks before it sends, the developer tools may say so afterwards.
      assert.deepEqual(requests.toSorted(), [
        "OPTIONS ChatStream",
        "OPTIONS StreamRunEvents",
        "POST ChatStream",
        "POST StreamRunEvents",
      ]);
    } finally {
      await browser.close();
    }
  }),
);
