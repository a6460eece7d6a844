import { maskText } from "../telemetry/mask.ts";
import { Secret } from "../telemetry/secret.ts";
import { formatDuration, parseDuration } from "./duration.ts";
import type { Reading } from "./reading.ts";
import { variablesOf } from "./reading.ts";

/** What every key may say about itself. */
export interface KeyOptions {
  /** One sentence for the reference. */
  readonly doc?: string;
  /** A customary environment variable, unless env-names.ts has one for this key. */
  readonly env?: string;
}

/** A key that may be absent: the reader answers undefined. */
export interface Optional {
  readonly optional: true;
}

/** Without a default a key is required. */
export interface Default<T> {
  readonly default?: T;
}

export interface TextRules {
  /** The whole text has to match. */
  readonly pattern?: RegExp;
  /** What the pattern means, for people: `32 bytes in base64`. */
  readonly expected?: string;
}

export interface UrlRules {
  /** With the colon, as `["https:"]`. Default http: and https:. */
  readonly protocols?: readonly string[];
}

export interface Range<T = number> {
  readonly min?: T;
  readonly max?: T;
}

/** A duration as text, `"10s"`, or in ms. */
export type DurationValue = string | number;

interface Kind<T> {
  readonly type: string;
  /** The value, or undefined when `raw` (text from the environment, anything from YAML) is none. */
  parse(raw: unknown): T | undefined;
  /** What to go on with after a refusal, so that all keys are looked at before anything is thrown. */
  readonly placeholder: T;
  readonly show?: (value: T) => string;
  readonly secret?: boolean;
  readonly tree?: boolean;
}

type AnyOptions<T> = KeyOptions & { readonly default?: T; readonly optional?: true };

const KEY = /^[a-z][a-z0-9]*(?:_[a-z0-9]+)*(?:\.[a-z][a-z0-9]*(?:_[a-z0-9]+)*)*$/;

/**
 * Where a service reads its configuration: typed readers over the layers, each of which also declares its key (type,
 * default, documentation) for the reference and for finding unknown keys. A reader never throws because of a value: it
 * notes the problem and answers the default or an empty value, and whoever opened the source throws all problems
 * together. So a `config` function reads every key unconditionally, computes nothing that an empty value would break,
 * and says with {@link problem} what is wrong across keys.
 */
export class ConfigSource {
  readonly #reading: Reading;
  readonly #prefix: string;

  constructor(reading: Reading, prefix = "") {
    this.#reading = reading;
    this.#prefix = prefix;
  }

  /** The keys below `name`, which may be dotted. */
  section(name: string): ConfigSource {
    return new ConfigSource(this.#reading, this.#key(name));
  }

  /** Notes that a key is wrong for a reason that its reader cannot know, as "required unless mesh.target is all". */
  problem(key: string, problem: string): void {
    const full = this.#key(key);
    const origin = this.#reading.find(full, this.#reading.keys.get(full)?.env ?? [])?.origin;
    this.#reading.refuse({ key: full, problem, origin });
  }

  string(key: string, options: KeyOptions & TextRules & Optional): string | undefined;
  string(key: string, options?: KeyOptions & TextRules & Default<string>): string;
  string(key: string, options: AnyOptions<string> & TextRules = {}): string | undefined {
    return this.#read(key, options, { type: options.expected ?? "text", placeholder: "", ...textKind(options) });
  }

  choice<const T extends string>(key: string, values: readonly T[], options: KeyOptions & Optional): T | undefined;
  choice<const T extends string>(key: string, values: readonly T[], options?: KeyOptions & Default<NoInfer<T>>): T;
  choice<const T extends string>(key: string, values: readonly T[], options: AnyOptions<T> = {}): T | undefined {
    return this.#read(key, options, {
      type: `one of ${values.join(", ")}`,
      parse: (raw) => values.find((value) => value === raw),
      placeholder: values[0] as T,
    });
  }

  int(key: string, options: KeyOptions & Range & Optional): number | undefined;
  int(key: string, options?: KeyOptions & Range & Default<number>): number;
  int(key: string, options: AnyOptions<number> & Range = {}): number | undefined {
    return this.#read(key, options, {
      type: `whole number${rangeText(options)}`,
      parse: (raw) => numberIn(raw, /^-?\d{1,15}$/, options, Number.isSafeInteger),
      placeholder: options.min ?? 0,
    });
  }

  number(key: string, options: KeyOptions & Range & Optional): number | undefined;
  number(key: string, options?: KeyOptions & Range & Default<number>): number;
  number(key: string, options: AnyOptions<number> & Range = {}): number | undefined {
    return this.#read(key, options, {
      type: `number${rangeText(options)}`,
      parse: (raw) => numberIn(raw, /^-?\d{1,15}(?:\.\d{1,15})?$/, options, Number.isFinite),
      placeholder: options.min ?? 0,
    });
  }

  bool(key: string, options: KeyOptions & Optional): boolean | undefined;
  bool(key: string, options?: KeyOptions & Default<boolean>): boolean;
  bool(key: string, options: AnyOptions<boolean> = {}): boolean | undefined {
    return this.#read(key, options, {
      type: "true or false",
      parse: (raw) => {
        const text = typeof raw === "object" ? "" : String(raw).toLowerCase();
        if (["true", "1", "yes", "on"].includes(text)) return true;
        return ["false", "0", "no", "off"].includes(text) ? false : undefined;
      },
      placeholder: false,
    });
  }

  /** Milliseconds, written as `500ms`, `10s`, `5m`, `2h` or `7d`; a number without a unit is refused. */
  duration(key: string, options: KeyOptions & Range<DurationValue> & Optional): number | undefined;
  duration(key: string, options?: KeyOptions & Range<DurationValue> & Default<DurationValue>): number;
  duration(key: string, options: AnyOptions<DurationValue> & Range<DurationValue> = {}): number | undefined {
    const range: Range = {
      ...(options.min === undefined ? {} : { min: ms(options.min) }),
      ...(options.max === undefined ? {} : { max: ms(options.max) }),
    };
    const { default: standard, ...rest } = options;
    return this.#read(key, standard === undefined ? rest : { ...rest, default: ms(standard) }, {
      type: `duration such as 10s or 500ms${rangeText(range, formatDuration)}`,
      parse: (raw) => inRange(typeof raw === "string" ? parseDuration(raw) : undefined, range),
      placeholder: range.min ?? 0,
      show: formatDuration,
    });
  }

  /** An address without credentials; one that holds some is a {@link secret}. */
  url(key: string, options: KeyOptions & UrlRules & Optional): string | undefined;
  url(key: string, options?: KeyOptions & UrlRules & Default<string>): string;
  url(key: string, options: AnyOptions<string> & UrlRules = {}): string | undefined {
    const protocols = options.protocols ?? ["http:", "https:"];
    return this.#read(key, options, {
      type: urlType(protocols),
      parse: (raw) => (isUrl(raw, protocols) ? String(raw) : undefined),
      placeholder: "",
    });
  }

  /** Texts: a YAML list, or in the environment separated by commas. */
  list(key: string, options: KeyOptions & TextRules & Optional): readonly string[] | undefined;
  list(key: string, options?: KeyOptions & TextRules & Default<readonly string[]>): readonly string[];
  list(key: string, options: AnyOptions<readonly string[]> & TextRules = {}): readonly string[] | undefined {
    const { parse } = textKind(options);
    return this.#read(key, options, {
      type: `list of ${options.expected ?? "text"}`,
      parse: (raw) => {
        const items = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
        if (!Array.isArray(items)) return undefined;
        return items.every((item) => parse(item) !== undefined) ? (items as string[]) : undefined;
      },
      placeholder: [],
      show: (items) => items.join(","),
    });
  }

  /**
   * A map or any other structure, the layers' maps laid over one another; in the environment YAML or JSON, or one
   * variable per inner key. `parse` returns the value or throws an error that says what is expected.
   */
  object<T>(key: string, parse: (raw: unknown) => T, options: KeyOptions & { type?: string; default: T }): T {
    return this.#read(key, options, {
      type: options.type ?? "map",
      parse: (raw) => parse(raw),
      placeholder: options.default,
      show: (value) => JSON.stringify(value),
      tree: true,
    }) as T;
  }

  /** A credential, or an address with one (`protocols`). It has no default, and no message shows its value. */
  secret(key: string, options: KeyOptions & TextRules & UrlRules & Optional): Secret<string> | undefined;
  secret(key: string, options?: KeyOptions & TextRules & UrlRules): Secret<string>;
  secret(key: string, options: AnyOptions<Secret<string>> & TextRules & UrlRules = {}): Secret<string> | undefined {
    const { parse } = textKind(options);
    const { protocols } = options;
    return this.#read<Secret<string>>(key, options, {
      type: options.expected ?? (protocols ? urlType(protocols) : "secret text"),
      parse: (raw) => {
        const text = parse(raw);
        return text === undefined || (protocols && !isUrl(text, protocols)) ? undefined : new Secret(text);
      },
      placeholder: new Secret(""),
      secret: true,
    });
  }

  #key(name: string): string {
    const key = this.#prefix === "" ? name : `${this.#prefix}.${name}`;
    if (!KEY.test(key)) throw new Error(`${key} is no configuration key: small letters, digits, _ and . for levels`);
    return key;
  }

  #read<T>(name: string, options: AnyOptions<T>, kind: Kind<T>): T | undefined {
    const key = this.#key(name);
    const env = variablesOf(key, options.env);
    const required = options.default === undefined && options.optional !== true;
    const shown = options.default === undefined ? undefined : (kind.show ?? String)(options.default);
    const described = { key, type: kind.type, default: shown, required, env, doc: options.doc ?? "" };
    this.#reading.note({ ...described, secret: kind.secret === true }, kind.tree === true);
    const found = kind.tree ? this.#reading.findTree(key, env) : this.#reading.find(key, env);
    if (found === undefined) {
      if (!required) return options.default;
      this.#reading.refuse({ key, problem: `required (${kind.type}); set it in a file or as ${env.join(" or ")}` });
      return kind.placeholder;
    }
    let expected = `expected ${kind.type}`;
    try {
      const value = kind.parse(found.raw);
      if (value !== undefined) return value;
    } catch (error) {
      expected = error instanceof Error ? error.message : expected;
    }
    const got = kind.secret ? "the value is not shown" : `got ${describe(found.raw)}`;
    this.#reading.refuse({ key, problem: `${expected}, ${got}`, origin: found.origin });
    return options.default ?? kind.placeholder;
  }
}

function textKind({ pattern }: TextRules): Pick<Kind<string>, "parse"> {
  const whole = pattern && new RegExp(`^(?:${pattern.source})$`, pattern.flags.replaceAll(/[gy]/g, ""));
  return { parse: (raw) => (typeof raw === "string" && (whole?.test(raw) ?? raw !== "") ? raw : undefined) };
}

function numberIn(raw: unknown, form: RegExp, range: Range, is: (value: number) => boolean): number | undefined {
  const value = typeof raw === "string" && form.test(raw) ? Number(raw) : raw;
  return typeof value === "number" && is(value) ? inRange(value, range) : undefined;
}

function inRange(value: number | undefined, { min, max }: Range): number | undefined {
  if (value === undefined || value < (min ?? value) || value > (max ?? value)) return undefined;
  return value;
}

function rangeText({ min, max }: Range, show: (value: number) => string = String): string {
  return `${min === undefined ? "" : ` from ${show(min)}`}${max === undefined ? "" : ` up to ${show(max)}`}`;
}

function urlType(protocols: readonly string[]): string {
  return `address beginning with ${protocols.map((protocol) => `${protocol}//`).join(" or ")}`;
}

function isUrl(raw: unknown, protocols: readonly string[]): boolean {
  return typeof raw === "string" && protocols.includes(URL.parse(raw)?.protocol ?? "");
}

function ms(value: DurationValue): number {
  const parsed = typeof value === "number" ? value : parseDuration(value);
  if (parsed === undefined) throw new Error(`${value} is no duration`);
  return parsed;
}

function describe(raw: unknown): string {
  if (typeof raw === "string") return JSON.stringify(maskText(raw, 60));
  if (Array.isArray(raw)) return "a list";
  return typeof raw === "object" ? "a map" : `${raw} (a ${typeof raw})`;
}
