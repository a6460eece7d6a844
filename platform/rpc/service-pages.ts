import type { ServerResponse } from "node:http";
import { type HealthReportOptions, healthPages } from "../module/health-report.ts";
import type { NodeListener } from "./port.ts";

/**
 * A port between services, with the pages of its process about itself in front: no gateway answers for this process, and
 * what it knows alone, such as the breakers of its models, is to be seen somewhere. GET and HEAD, without a credential.
 */
export function withServicePages(next: NodeListener, options: HealthReportOptions): NodeListener {
  const pages = healthPages(options);
  return (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    const page = Object.hasOwn(pages, path) ? pages[path] : undefined;
    if (page === undefined) return next(request, response);
    const answer = response as ServerResponse;
    // A client that leaves early has nothing to be told.
    answer.on("error", () => {});
    if (request.method !== "GET" && request.method !== "HEAD") {
      answer.writeHead(405, { allow: "GET, HEAD" }).end();
      return;
    }
    const show = async () => {
      const { status, json } = await page();
      answer.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
      answer.end(request.method === "HEAD" ? "" : JSON.stringify(json));
    };
    show().catch(() => answer.destroy());
  };
}
