/** What a process does to itself when it reaches a failpoint. */
export type FailpointAction =
  /** SIGKILL: nothing of this process runs any more, not even what was about to be flushed. */
  | { readonly kind: "kill" }
  /** SIGSTOP: the process stands still with its sockets open until somebody sends SIGCONT. */
  | { readonly kind: "stop" }
  /** The whole thread stands still, as in a long garbage collection. */
  | { readonly kind: "delay"; readonly ms: number }
  | { readonly kind: "error" };

export interface ArmedFailpoint {
  readonly action: FailpointAction;
  /** The visit that it happens at, from 1; undefined: at every visit. */
  readonly visit: number | undefined;
}

/** Thrown at a failpoint that is armed with `error`. */
export class FailpointError extends Error {
  override readonly name = "FailpointError";

  constructor(failpoint: string) {
    super(`failpoint ${failpoint}`);
  }
}

const NAME = /^[a-z][a-z0-9-]*(\.[a-z0-9-]+)+$/;
const SPECIFICATION = /^([^:]+):(?:(kill|stop|error)|delay=(\d{1,6})ms)(?:@(\d{1,6}))?$/;
const MAX_DELAY_MS = 600_000;

/**
 * Reads the failpoints that an environment arms: `AGENTMESH_FAILPOINTS` holds, with commas between, `name:kill`,
 * `name:stop`, `name:error` or `name:delay=250ms`; `@3` behind it means the third visit only. Throws an Error for
 * anything else, and for a production environment (`AGENTMESH_ENV` or `NODE_ENV` is `production`) unless
 * `AGENTMESH_FAILPOINTS_IN_PRODUCTION` is `yes`. With `AGENTMESH_FAILPOINTS_WAIT=yes` visits do nothing, and are not
 * counted, until the process gets a SIGUSR2: a test can have it busy first.
 */
export function armedFailpoints(
  env: Readonly<Record<string, string | undefined>>,
): ReadonlyMap<string, ArmedFailpoint> | undefined {
  const text = env["AGENTMESH_FAILPOINTS"];
  if (!text) return undefined;
  const production = env["AGENTMESH_ENV"] === "production" || env["NODE_ENV"] === "production";
  if (production && env["AGENTMESH_FAILPOINTS_IN_PRODUCTION"] !== "yes") {
    throw new Error(
      "AGENTMESH_FAILPOINTS is set in production, where a process must not break on purpose; " +
        "AGENTMESH_FAILPOINTS_IN_PRODUCTION=yes allows it",
    );
  }
  const armed = new Map<string, ArmedFailpoint>();
  for (const one of text.split(",").map((part) => part.trim())) {
    const [, name = "", kind, ms, visit] = SPECIFICATION.exec(one) ?? [];
    const action: FailpointAction =
      ms === undefined ? { kind: kind as "kill" | "stop" | "error" } : { kind: "delay", ms: Number(ms) };
    if (!NAME.test(name) || Number(ms ?? 0) > MAX_DELAY_MS || visit === "0") {
      throw new Error(`AGENTMESH_FAILPOINTS: ${JSON.stringify(one)} is none; such as run-log.before-store:kill@3`);
    }
    armed.set(name, { action, visit: visit === undefined ? undefined : Number(visit) });
  }
  return armed;
}

/** Whether a visit, the n-th one, is when it happens. */
export function isDue({ visit }: ArmedFailpoint, visits: number): boolean {
  return visit === undefined || visit === visits;
}

const armed = armedFailpoints(process.env);
const visits = new Map<string, number>();
let waiting = armed !== undefined && process.env["AGENTMESH_FAILPOINTS_WAIT"] === "yes";
if (waiting) {
  process.once("SIGUSR2", () => {
    waiting = false;
  });
}

/**
 * A place where a process can be made to break, for the fault tests: one before and one after each write whose loss
 * would matter. Does nothing unless `AGENTMESH_FAILPOINTS` named it at the start ({@link armedFailpoints}). Names are
 * `<file>.<place>` and stand in the source as they are, so that a test can list them. Throws {@link FailpointError} when
 * armed with `error`.
 */
export function failpoint(name: string): void {
  if (armed !== undefined) visit(name, armed);
}

function visit(name: string, points: ReadonlyMap<string, ArmedFailpoint>): void {
  const point = points.get(name);
  if (point === undefined || waiting) return;
  const count = (visits.get(name) ?? 0) + 1;
  visits.set(name, count);
  if (!isDue(point, count)) return;
  const { action } = point;
  switch (action.kind) {
    case "kill":
      process.kill(process.pid, "SIGKILL");
      break;
    case "stop":
      process.kill(process.pid, "SIGSTOP");
      break;
    case "delay":
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, action.ms);
      break;
    case "error":
      throw new FailpointError(name);
  }
}
