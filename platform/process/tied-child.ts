import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";

export interface TiedOptions {
  /** Run as this user and group (both, or neither); needs root. Supplementary groups are dropped. */
  uid?: number | undefined;
  gid?: number | undefined;
  /**
   * With `uid`: keep CAP_DAC_READ_SEARCH (capabilities(7)), so that the child reaches files below directories
   * that its user may not enter, such as a project under a home of mode 0700.
   */
  keepReadSearch?: boolean | undefined;
  cwd?: string | undefined;
  /** The child's whole environment. Default: only what a server needs to start, so that no secret of ours is handed on. */
  env?: NodeJS.ProcessEnv | undefined;
  /** The signal that the child gets when its parent dies; default SIGKILL. */
  deathSignal?: NodeJS.Signals | undefined;
  /** Do not keep this process alive for the child's sake; default false. */
  background?: boolean | undefined;
  /** Called for every line that the child writes; without it the output is thrown away. */
  onLine?: ((line: string, from: "stdout" | "stderr") => void) | undefined;
}

/** How a child ended: its exit code, or the signal that ended it, or the error that kept it from starting. */
export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
  error?: Error;
}

/** A child process that does not outlive its parent. */
export interface TiedChild extends AsyncDisposable {
  readonly pid: number | undefined;
  /** Set once the child has ended. */
  readonly exit: Exit | undefined;
  /** Resolves when the child has ended and its output has been read; never rejects. */
  readonly exited: Promise<Exit>;
  kill(signal: NodeJS.Signals): void;
  /** Sends `signal` (default SIGTERM), after `graceMs` (default 5 000) SIGKILL, and waits for the end. */
  stop(signal?: NodeJS.Signals, graceMs?: number): Promise<Exit>;
}

/**
 * Starts a program that dies with this process, even when this process is killed with SIGKILL.
 *
 * On Linux `setpriv` (util-linux ≥ 2.33) sets the parent-death signal of prctl(2); a shell line then checks that
 * the parent has not died before that, and replaces itself by the program, so that `pid` is the program's. Elsewhere
 * the child ends with an orderly end of this process only. The signal follows the *thread* that spawned
 * (prctl(2), PR_SET_PDEATHSIG): call from the main thread.
 */
export function spawnTied(command: string, args: readonly string[], options: TiedOptions = {}): TiedChild {
  const stdio = options.onLine ? "pipe" : "ignore";
  const tie = canTie();
  const [file, argv] = tie ? ["setpriv", tiedArguments(command, args, options)] : [command, [...args]];
  const child = spawn(file, argv, {
    cwd: options.cwd,
    env: options.env ?? serverEnvironment(),
    stdio: ["ignore", stdio, stdio],
    // A session of its own: Ctrl-C at a terminal is for this process, which then stops its children in its order.
    detached: true,
    ...(tie || options.uid === undefined ? {} : { uid: options.uid, gid: options.gid }),
  });
  return watch(child, options, tie);
}

const outputGraceMs = 1_000;

function watch(child: ChildProcess, options: TiedOptions, tied: boolean): TiedChild {
  let exit: Exit | undefined;
  const endWithUs = () => child.kill(options.deathSignal ?? "SIGKILL");
  if (!tied) process.once("exit", endWithUs);
  const exited = new Promise<Exit>((resolve) => {
    const end = (ended: Exit) => {
      process.off("exit", endWithUs);
      exit ??= ended;
      resolve(exit);
    };
    child.once("error", (error) => {
      if (child.pid === undefined) end({ code: null, signal: null, error });
    });
    child.once("exit", (code, signal) => {
      exit = { code, signal };
      // "close" waits for the pipes, which a grandchild may keep open.
      setTimeout(end, outputGraceMs, exit).unref();
    });
    child.once("close", (code, signal) => end({ code, signal }));
  });
  if (options.onLine) readLines(child, options.onLine);
  if (options.background) {
    child.unref();
    for (const pipe of [child.stdout, child.stderr]) (pipe as Socket | null)?.unref();
  }
  const kill = (signal: NodeJS.Signals) => void child.kill(signal);
  const stop = async (signal: NodeJS.Signals = "SIGTERM", graceMs = 5_000) => {
    if (exit) return exited;
    kill(signal);
    const timer = setTimeout(kill, graceMs, "SIGKILL");
    try {
      return await exited;
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    pid: child.pid,
    get exit() {
      return exit;
    },
    exited,
    kill,
    stop,
    [Symbol.asyncDispose]: async () => void (await stop()),
  };
}

function readLines(child: ChildProcess, onLine: NonNullable<TiedOptions["onLine"]>): void {
  for (const from of ["stdout", "stderr"] as const) {
    const input = child[from];
    if (input) createInterface({ input, crlfDelay: Infinity }).on("line", (line) => onLine(line, from));
  }
}

/** Ends the shell at once when the parent died before the death signal was set; $0 is the parent's pid. */
const execIfParentLives = '[ "$PPID" = "$0" ] || exit 1; exec "$@"';

// Without the last one access(2) would ignore the capability of a user who is not root, and programs ask access(2).
const keepReadSearch = [
  "--inh-caps=+dac_read_search",
  "--ambient-caps=+dac_read_search",
  "--securebits=+no_setuid_fixup",
];

function tiedArguments(command: string, args: readonly string[], options: TiedOptions): string[] {
  const drop = options.uid === undefined ? [] : [`--reuid=${options.uid}`, `--regid=${options.gid}`, "--clear-groups"];
  const keep = options.uid !== undefined && options.keepReadSearch ? keepReadSearch : [];
  const signal = (options.deathSignal ?? "SIGKILL").slice("SIG".length);
  return [
    "--pdeathsig",
    signal,
    ...drop,
    ...keep,
    "--",
    "/bin/sh",
    "-c",
    execIfParentLives,
    String(process.pid),
    command,
    ...args,
  ];
}

let setprivWorks: boolean | undefined;

/** Whether children can be tied here. BusyBox has a setpriv without --pdeathsig, so the option itself is tried. */
function canTie(): boolean {
  setprivWorks ??=
    process.platform === "linux" &&
    spawnSync("setpriv", ["--pdeathsig", "KILL", "true"], { stdio: "ignore", timeout: 5_000 }).status === 0;
  return setprivWorks;
}

/** Whether `keepReadSearch` can be honoured: containers often withhold the capability even from root. */
export function canKeepReadSearch(): boolean {
  if (process.getuid?.() !== 0 || !canTie()) return false;
  return (
    spawnSync("setpriv", ["--reuid=1", ...keepReadSearch, "true"], { stdio: "ignore", timeout: 5_000 }).status === 0
  );
}

function serverEnvironment(): NodeJS.ProcessEnv {
  const kept = ["PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL"];
  return Object.fromEntries(
    kept.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
}
