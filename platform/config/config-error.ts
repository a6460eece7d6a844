/** One thing that is wrong with the configuration. */
export interface ConfigProblem {
  /** The dotted key, the environment variable or the file. */
  readonly key: string;
  /** What is expected and, unless it is a secret, what is there. */
  readonly problem: string;
  /** Where the value comes from: a file with its line, or an environment variable. Absent when it comes from nowhere. */
  readonly origin?: string | undefined;
}

/** Everything that is wrong with the configuration at once. Its message is for the operator and holds no secret. */
export class ConfigError extends Error {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[], options?: ErrorOptions) {
    const lines = problems.map(({ key, problem, origin }) => `\n  ${key}: ${problem}${origin ? ` (${origin})` : ""}`);
    super(
      `the configuration has ${problems.length} problem${problems.length === 1 ? "" : "s"}:${lines.join("")}`,
      options,
    );
    this.name = "ConfigError";
    this.problems = problems;
  }
}
