import type { JsonValue } from "@bufbuild/protobuf";
import { type HealthReportOptions, healthPages } from "#platform/module/health-report.ts";
import type { Face } from "./face.ts";

/** The health pages of this process, as faces of the edge. */
export function healthFaces(options: HealthReportOptions): Readonly<Record<string, Face>> {
  return Object.fromEntries(
    Object.entries(healthPages(options)).map(([path, page]): [string, Face] => [
      path,
      async () => {
        const { status, json } = await page();
        return { status, json: json as JsonValue };
      },
    ]),
  );
}
