import { gateway } from "#gateway/index.ts";
import type { ModuleTable } from "#platform/module/graph.ts";
import { agent } from "#services/agent/index.ts";
import { auth } from "#services/auth/index.ts";
import { config } from "#services/config/index.ts";
import { tool } from "#services/tool/index.ts";

/**
 * THE TABLE: everything that can run, and who calls whom. MESH_TARGET names rows of it; `all` runs every row in one
 * process. A call becomes a start-order edge in one process, and an address that must be configured between processes.
 */
export const MODULES: ModuleTable = {
  auth: { module: auth, calls: [] },
  config: { module: config, calls: [] },
  tool: { module: tool, calls: [] },
  agent: { module: agent, calls: ["config", "tool", "agent"] },
  gateway: { module: gateway, calls: ["auth", "config", "tool", "agent"] },
};
