/** Whether the long form was asked for: FAULTS_LONG=1, or `--long` behind the file's name. */
export const LONG = process.env["FAULTS_LONG"] === "1" || process.argv.includes("--long");

/** The seed of this run's schedule; FAULTS_SEED repeats an earlier one. */
export const SEED = Number(process.env["FAULTS_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
