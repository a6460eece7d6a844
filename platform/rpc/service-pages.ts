import type { ServerResponse } from "node:http";
import { type HealthReportOptions, healthPages } from "../module/health-report.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { isHandedOn, isNear, plainAddress } from "./address-block.ts";
import type { NodeListener } from "./port.ts";

export interface ServicePagesOptions extends HealthReportOptions {
  readonly metrics: Pick<Metrics, "text" | "contentType">;
}

interface Page {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

const METRICS_PATH = "/metrics";

/**
 * A port between services, with the pages of its process about itself in front: no gateway answers for this process, and
 * what it knows alone, such as the breakers of its models, is to be seen somewhere. GET and HEAD, without a credential;
 * `/metrics`, for Prometheus, answers this host and private networks only, and no proxy.
 */
export function withServicePages(next: NodeListener, options: ServicePagesOptions): NodeListener {
  const { metrics } = options;
  const health = healthPages(options);
  return (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    const healthPage = Object.hasOwn(health, path) ? health[path] : undefined;
    if (healthPage === undefined && path !== METRICS_PATH) return next(request, response);
    const answer = response as ServerResponse;
    // A client that leaves early has nothing to be told.
    answer.on("error", () => {});
    if (request.method !== "GET" && request.method !== "HEAD") {
      answer.writeHead(405, { allow: "GET, HEAD" }).end();
      return;
    }
    const metricsPage = async (): Promise<Page> => {
      const near = isNear(plainAddress(request.socket.remoteAddress ?? ""));
      if (!near || isHandedOn((name) => request.headers[name] !== undefined)) {
        return { status: 403, type: "text/plain", text: "Metrics are for this host and its private network.\n" };
      }
      return { status: 200, type: metrics.contentType, text: await metrics.text() };
    };
    const show = async () => {
      const { status, type, text } = healthPage === undefined ? await metricsPage() : inJson(await healthPage());
      answer.writeHead(status, { "content-type": type, "cache-control": "no-store" });
      answer.end(request.method === "HEAD" ? "" : text);
    };
    show().catch(() => answer.destroy());
  };
}

function inJson({ status, json }: { status: number; json: object }): Page {
  return { status, type: "application/json", text: JSON.stringify(json) };
}
